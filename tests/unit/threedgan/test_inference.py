# SPDX-License-Identifier: Apache-2.0
"""One run, as the command line starts it: files, metrics, exit codes."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from threedgan.cli import build_parser, main, read_settings
from threedgan.engines import Engines
from threedgan.errors import SettingsError
from threedgan.inference import infer
from threedgan.settings import Settings, thread_count
from threedgan.weights import Weights

from tests.support.showers import showers_in


def test_partial_last_batch_is_kept_and_batch_size_changes_nothing(tmp_path, input_file):
    path = input_file(count=3)
    for size in (2, 3):
        metrics = infer(Settings(path, tmp_path / f"out{size}", batch_size=size, picture=False))
        assert (metrics["showers"], metrics["batches"]) == (3, -(-3 // size))
    one, other = (showers_in(tmp_path / f"out{size}" / "in.showers.h5") for size in (2, 3))
    assert one["ECAL"].shape == (3, 51, 51, 25)
    assert one["ECAL"].dtype == np.float32
    np.testing.assert_allclose(one["ECAL"], other["ECAL"], rtol=1e-5, atol=1e-7)
    assert one["ECAL"].min() >= 0
    assert one["ECAL"].max() > 0


def test_output_is_gev_and_carries_energy_and_angle_of_the_input(tmp_path, input_file):
    path = input_file(count=2)
    metrics = infer(Settings(path, tmp_path / "out", picture=False))
    made, given = showers_in(tmp_path / "out" / "in.showers.h5"), showers_in(path)
    np.testing.assert_array_equal(made["energy"], given["energy"])
    np.testing.assert_array_equal(made["theta"], given["theta"])
    fraction = (made["ECAL"].sum(axis=(1, 2, 3), dtype=float) / given["energy"]).mean()
    assert metrics["sampling_fraction"]["generated"] == pytest.approx(fraction, rel=1e-4)
    assert metrics["sampling_fraction"]["input"] == pytest.approx(0.02, rel=1e-3)
    assert metrics["angle_error_rad"]["input"] < 1e-3
    with h5py.File(tmp_path / "out" / "in.showers.h5") as file:
        assert file["ECAL"].compression == "gzip"
        assert file["ECAL"].attrs["unit"] == "GeV"
        assert file.attrs["weights"] == "seed 4231162351"


def test_seed_changes_the_showers_and_weights_file_changes_the_origin(tmp_path, input_file):
    path = input_file(count=1)
    Weights.from_seed(5).save(tmp_path / "w.npz")
    infer(Settings(path, tmp_path / "a", picture=False))
    infer(Settings(path, tmp_path / "b", seed=1, picture=False))
    metrics = infer(Settings(path, tmp_path / "c", weights=tmp_path / "w.npz", picture=False))
    images = [showers_in(tmp_path / name / "in.showers.h5")["ECAL"] for name in "abc"]
    assert not np.array_equal(images[0], images[1])
    assert not np.array_equal(images[0], images[2])
    assert metrics["weights"]["origin"] == "w.npz"
    assert metrics["weights"]["trained"]


@pytest.mark.parametrize("content", [b"", b"nonsense", None], ids=["empty", "nonsense", "no-theta"])
def test_bad_input_is_one_line_and_exit_code_65(tmp_path, capfd, caplog, input_file, content):
    path = input_file(theta=None)
    if content is not None:
        path.write_bytes(content)
    code = main(["infer", "--input", str(path), "--output", str(tmp_path / "out")])
    assert code == 65
    assert [record.message.count("\n") for record in caplog.records] == [0]
    assert "in.h5" in caplog.text
    assert "Traceback" not in capfd.readouterr().err
    assert not (tmp_path / "out").exists()


def test_missing_input_exits_66_and_unwritable_output_73(tmp_path, input_file):
    assert main(["infer", "--input", str(tmp_path / "none.h5"), "--output", str(tmp_path / "out")]) == 66
    occupied = tmp_path / "file"
    occupied.write_text("")
    assert main(["infer", "--input", str(input_file()), "--output", str(occupied)]) == 73


def test_failed_run_leaves_no_partial_showers(tmp_path, input_file, monkeypatch):
    monkeypatch.setattr(Engines, "run", lambda *_: (_ for _ in ()).throw(RuntimeError("out of memory")))
    with pytest.raises(RuntimeError, match="out of memory"):
        infer(Settings(input_file(), tmp_path / "out", picture=False))
    assert list((tmp_path / "out").iterdir()) == []


def settings(environment: dict[str, str], *options: str) -> Settings:
    return read_settings(build_parser().parse_args(["infer", *options]), environment)


PATHS = {"INPUT_FILE_PATH": "/in/a.h5", "TMP_OUTPUT_DIR": "/out"}


def test_options_win_over_the_environment():
    told = {**PATHS, "BATCH_SIZE": "7", "ACCELERATOR": "gpu", "MAX_DATA_SAMPLES": ""}
    assert settings(told).batch_size == 7
    assert settings(told).provider == "cuda"
    assert settings(told).limit is None
    assert settings(told).picture
    assert not settings({**told, "THREEDGAN_PICTURE": "False"}).picture
    assert settings({**told, "THREEDGAN_ENGINE": "openvino"}, "--engine", "onnxruntime").engine == "onnxruntime"
    chosen = settings(told, "--batch-size", "2", "--provider", "cpu", "--input", "/other.h5")
    assert (chosen.batch_size, chosen.provider, chosen.input) == (2, "cpu", Path("/other.h5"))


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({}, "INPUT_FILE_PATH and TMP_OUTPUT_DIR"),
        ({**PATHS, "BATCH_SIZE": "many"}, "BATCH_SIZE must be a whole number, got 'many'"),
        ({**PATHS, "BATCH_SIZE": "0"}, "batch size must be at least 1"),
        ({**PATHS, "MAX_DATA_SAMPLES": "-1"}, "max showers must be at least 1"),
        ({**PATHS, "ACCELERATOR": "tpu"}, "ACCELERATOR must be cpu, gpu or auto"),
        ({**PATHS, "THREEDGAN_SEED": "-4"}, "seed must not be negative"),
        ({**PATHS, "THREEDGAN_ENGINE": "torch"}, "engine must be one of auto, onnxruntime, openvino"),
        ({**PATHS, "THREEDGAN_PICTURE": "perhaps"}, "THREEDGAN_PICTURE must be true or false"),
    ],
    ids=["nothing", "text", "zero", "negative", "accelerator", "seed", "engine", "picture"],
)
def test_unusable_settings_are_named(environment, message):
    with pytest.raises(SettingsError, match=message):
        settings(environment)


def test_threads_follow_the_grant_not_the_machine(tmp_path, monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))
    limit = tmp_path / "cpu.max"
    assert thread_count({}, limit) == 1
    limit.write_text("max 100000\n")
    assert thread_count({}, limit) == 1
    limit.write_text("350000 100000\n")
    assert thread_count({}, limit) == 3
    assert thread_count({"SLURM_CPUS_PER_TASK": "2"}, limit) == 2
    assert thread_count({"SLURM_CPUS_PER_TASK": "64"}, limit) == 8
    assert thread_count({"SLURM_CPUS_PER_TASK": "2", "THREEDGAN_THREADS": "16"}, limit) == 16
