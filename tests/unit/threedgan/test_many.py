# SPDX-License-Identifier: Apache-2.0
"""Many input files in one process."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest
from threedgan import inference, many
from threedgan.cli import main
from threedgan.errors import InputError, MissingInputError
from threedgan.inference import infer, load
from threedgan.many import infer_many
from threedgan.settings import Settings


@pytest.fixture
def inputs(tmp_path, input_file):
    """Three files in two directories, two of them of one name."""
    directory = tmp_path / "inputs"
    for name, count in (("a.h5", 1), ("night/a.h5", 2), ("night/b.h5", 1)):
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        input_file(count).rename(path)
    return directory


def showers_in(path):
    with h5py.File(path) as file:
        return file["ECAL"][:]


def test_each_file_gets_what_it_gets_alone_and_the_network_is_loaded_once(tmp_path, inputs, monkeypatch):
    loads = []
    monkeypatch.setattr(many, "load", lambda settings: loads.append(settings) or load(settings))
    monkeypatch.setattr(inference, "load", lambda settings: pytest.fail("it was loaded again"))
    found = infer_many(Settings(inputs, tmp_path / "out", picture=False, engine="onnxruntime"))
    assert len(loads) == 1
    assert (found["objects"], found["showers"], found["unusable"]) == (3, 4, [])
    assert [each["input"] for each in found["files"]] == ["a.h5", "night/a.h5", "night/b.h5"]
    monkeypatch.undo()
    infer(Settings(inputs / "night" / "a.h5", tmp_path / "alone", picture=False, engine="onnxruntime"))
    together, alone = tmp_path / "out" / "night" / "a.showers.h5", tmp_path / "alone" / "a.showers.h5"
    np.testing.assert_array_equal(showers_in(together), showers_in(alone))


def test_a_bad_file_stops_no_other_and_fails_the_job(tmp_path, inputs, capfd, caplog):
    (inputs / "broken.h5").write_bytes(b"no HDF5 at all")
    arguments = ["infer", "--input", str(inputs), "--output", str(tmp_path / "out"), "--no-picture"]
    assert main(arguments) == InputError.exit_code
    assert "1 of 4 input files are unusable, the others are done: broken.h5: not an HDF5 file" in caplog.text
    assert len(list((tmp_path / "out").rglob("*.showers.h5"))) == 3


def test_metrics_tell_of_all_files(tmp_path, inputs, monkeypatch):
    monkeypatch.setattr(many, "TOLD", 1)
    path = tmp_path / "metrics.json"
    infer_many(Settings(inputs, tmp_path / "out", picture=False, metrics_file=path))
    told = json.loads(path.read_text())
    assert (told["objects"], told["showers"], len(told["files"])) == (3, 4, 1)
    assert told["device"] == "cpu"


def test_files_of_one_stem_do_not_overwrite_each_other(tmp_path, inputs):
    (inputs / "a.hdf5").write_bytes((inputs / "night" / "a.h5").read_bytes())
    infer_many(Settings(inputs, tmp_path / "out", picture=False))
    assert len(showers_in(tmp_path / "out" / "a.showers.h5")) == 1
    assert len(showers_in(tmp_path / "out" / "a.hdf5" / "a.showers.h5")) == 2


def test_a_large_batch_is_generated_and_written_in_parts(tmp_path, input_file, monkeypatch):
    monkeypatch.setattr(inference, "LARGEST_CALL", 2)
    sizes = []
    append = inference.ShowerWriter.append
    monkeypatch.setattr(
        inference.ShowerWriter,
        "append",
        lambda self, **parts: sizes.append(len(parts["ECAL"])) or append(self, **parts),
    )
    found = infer(Settings(input_file(5), tmp_path / "out", batch_size=256, picture=False))
    assert (sizes, found["showers"]) == ([2, 2, 1], 5)


def test_a_directory_without_files_is_said(tmp_path):
    with pytest.raises(MissingInputError, match="no input file in this directory"):
        infer_many(Settings(tmp_path, tmp_path / "out"))
