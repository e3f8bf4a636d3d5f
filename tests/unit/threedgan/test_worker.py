# SPDX-License-Identifier: Apache-2.0
"""A persistent worker does one input file after another, each as a process of its own would."""

from __future__ import annotations

import io
import json
import sys

import numpy as np
import pytest
from threedgan import inference, worker
from threedgan.cli import main
from threedgan.errors import InputError, MissingInputError
from threedgan.inference import infer, load
from threedgan.settings import Settings

from tests.unit.threedgan.test_many import showers_in


def request(folder, path):
    """A line of the supervisor's."""
    (folder / path.stem).mkdir()
    variables = {"INPUT_FILE_PATH": path, "TMP_OUTPUT_DIR": folder / path.stem, "SUPERVISOR_METRICS_FILE": ""}
    return json.dumps({name: str(value) for name, value in variables.items()}) + "\n"


@pytest.fixture
def answers(tmp_path, monkeypatch):
    monkeypatch.setenv("THREEDGAN_PICTURE", "false")
    monkeypatch.setenv("SUPERVISOR_ANSWERS", str(tmp_path / "answers"))
    return tmp_path / "answers"


def test_each_file_has_what_it_has_alone_and_the_network_is_loaded_once(tmp_path, input_file, answers, monkeypatch):
    loads = []
    monkeypatch.setattr(worker, "load", lambda settings: loads.append(settings) or load(settings))
    monkeypatch.setattr(inference, "load", lambda settings: pytest.fail("it was loaded again"))
    files = [input_file(count, name) for count, name in ((1, "a.h5"), (2, "b.h5"))]
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(request(tmp_path, path) for path in files)))
    assert main(["infer", "--engine", "onnxruntime"]) == 0
    assert (answers.read_text(), len(loads)) == ("0\n0\n", 1)
    monkeypatch.undo()
    infer(Settings(files[1], tmp_path / "alone", picture=False, engine="onnxruntime"))
    np.testing.assert_array_equal(
        showers_in(tmp_path / "b" / "b.showers.h5"), showers_in(tmp_path / "alone" / "b.showers.h5")
    )


def test_a_bad_file_has_its_own_exit_code_and_stops_no_other(tmp_path, input_file, answers, monkeypatch):
    broken = tmp_path / "broken.h5"
    broken.write_bytes(b"no HDF5 at all")
    files = [broken, tmp_path / "absent.h5", input_file(1, "good.h5")]
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(request(tmp_path, path) for path in files)))
    assert main(["infer"]) == 0
    assert answers.read_text().split() == [str(InputError.exit_code), str(MissingInputError.exit_code), "0"]
    assert (tmp_path / "good" / "good.showers.h5").is_file()
