# SPDX-License-Identifier: Apache-2.0
"""Reading what arrives: the loader's selection, and one clear error for each way a file can be bad."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from threedgan import data
from threedgan.data import read_showers, synthetic_showers, write_input
from threedgan.errors import InputError, MissingInputError, SettingsError

GOOD = synthetic_showers(3, seed=7)


def test_written_input_is_read_back(tmp_path):
    write_input(tmp_path / "a.h5", 5, seed=1)
    showers = read_showers(tmp_path / "a.h5")
    made = synthetic_showers(5, seed=1)
    assert showers.found == len(showers) == 5
    np.testing.assert_array_equal(showers.energy, made["energy"])
    np.testing.assert_array_equal(showers.theta, made["theta"])
    assert showers.energy.min() >= 100
    assert np.rad2deg(showers.theta).max() <= 120


def test_same_seed_writes_the_same_showers():
    np.testing.assert_array_equal(synthetic_showers(2, 5)["ECAL"], synthetic_showers(2, 5)["ECAL"])


def test_showers_below_the_threshold_are_dropped_with_their_energy_and_angle(input_file):
    images = GOOD["ECAL"].copy()
    images[1] *= 9.9 / images[1].sum()
    showers = read_showers(input_file(ECAL=images))
    assert (showers.found, len(showers)) == (3, 2)
    np.testing.assert_array_equal(showers.energy, GOOD["energy"][[0, 2]])
    np.testing.assert_array_equal(showers.theta, GOOD["theta"][[0, 2]])


def test_cells_below_the_cut_do_not_count_towards_the_threshold(input_file):
    images = np.full((3, 51, 51, 25), 0.99e-4, np.float32)
    images[0] = GOOD["ECAL"][0]
    images[1] *= 10  # 64 in all, from cells above the cut
    assert len(read_showers(input_file(ECAL=images))) == 2


def test_limit_counts_selected_showers_and_spans_chunks(input_file, monkeypatch):
    monkeypatch.setattr(data, "CHUNK", 2)
    images = synthetic_showers(7, seed=7)["ECAL"]
    images[0] = 0
    path = input_file(count=7, ECAL=images)
    assert len(read_showers(path)) == 6
    limited = read_showers(path, 4)
    np.testing.assert_array_equal(limited.energy, synthetic_showers(7, seed=7)["energy"][1:5])
    assert len(limited.pictured) == 4


@pytest.mark.parametrize("kind", ["float64", "int32"])
def test_other_number_types_are_cast(input_file, kind):
    showers = read_showers(input_file(**{name: values.astype(kind) for name, values in GOOD.items() if name != "ECAL"}))
    assert showers.energy.dtype == showers.theta.dtype == np.float32


def test_trailing_axis_of_one_is_accepted(input_file):
    columns = {name: GOOD[name][:, None] for name in ("energy", "theta")}
    assert len(read_showers(input_file(ECAL=GOOD["ECAL"][..., None], **columns))) == 3


NAN = GOOD["theta"].copy()
NAN[1] = np.nan


@pytest.mark.parametrize(
    ("replaced", "message"),
    [
        ({"theta": None}, "dataset 'theta' is missing; the file holds ECAL, energy"),
        ({"ECAL": None}, "dataset 'ECAL' is missing"),
        ({"energy": None}, "dataset 'energy' is missing"),
        ({"ECAL": np.zeros((3, 25, 25, 25))}, r"shape \(3, 25, 25, 25\), expected \(N, 51, 51, 25\)"),
        ({"ECAL": np.float32(1)}, r"'ECAL' has shape \(\), expected"),
        ({"theta": GOOD["theta"][:2]}, "the datasets differ in length: {'ECAL': 3, 'energy': 3, 'theta': 2}"),
        ({"theta": np.array([b"a", b"b", b"c"])}, "'theta' holds .*, expected numbers"),
        ({"theta": NAN}, "'theta' holds values that are not finite"),
        ({"ECAL": np.zeros((3, 51, 51, 25))}, "none of the 3 showers has cells adding up to more than 10"),
        ({name: values[:0] for name, values in GOOD.items()}, "the file holds no showers"),
    ],
    ids=[
        "no-theta", "no-ecal", "no-energy", "wrong-shape", "scalar", "lengths", "text", "nan", "below-threshold",
        "none",
    ],
)  # fmt: skip
def test_unusable_content_is_named(input_file, replaced, message):
    with pytest.raises(InputError, match=message):
        read_showers(input_file(**replaced))


def test_group_in_place_of_a_dataset_is_refused(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_group("ECAL")
    with pytest.raises(InputError, match="'ECAL' is not a dataset stored in this file"):
        read_showers(tmp_path / "a.h5")


def test_link_to_another_file_is_not_followed(tmp_path, input_file):
    other = input_file(name="other.h5")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name in GOOD:
            file[name] = h5py.ExternalLink(str(other), f"/{name}")
    with pytest.raises(InputError, match="is not a dataset stored in this file"):
        read_showers(tmp_path / "a.h5")


def test_dataset_kept_in_another_file_is_refused(tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(3 * 51 * 51 * 25 * 4))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("ECAL", (3, 51, 51, 25), "f4", external=[(str(secret), 0, secret.stat().st_size)])
    with pytest.raises(InputError, match="is not a dataset stored in this file"):
        read_showers(tmp_path / "a.h5")


@pytest.mark.parametrize("size", [1, 100, 600, 2000, 100_000], ids=str)
def test_truncated_file_is_named_as_such(tmp_path, input_file, size):
    path = tmp_path / "cut.h5"
    path.write_bytes(input_file().read_bytes()[:size])
    with pytest.raises(InputError, match=r"cut\.h5: .*(truncated|not an HDF5|damaged)"):
        read_showers(path)


def test_overwritten_bytes_never_raise_anything_but_our_errors(tmp_path):
    whole = tmp_path / "whole.h5"
    write_input(whole, 2, seed=1)
    content = whole.read_bytes()
    outcomes = set()
    for offset in range(0, len(content), len(content) // 40):
        path = tmp_path / "bad.h5"
        path.write_bytes(content[:offset] + b"\xff" * 16 + content[offset + 16 :])
        try:
            outcomes.add(type(read_showers(path)))
        except InputError as error:
            outcomes.add(type(error))
    assert InputError in outcomes


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "is empty"), (b"<html>not found</html>", "not an HDF5 file")],
    ids=["empty", "html"],
)
def test_file_that_is_not_hdf5_is_named_as_such(tmp_path, content, message):
    path = tmp_path / "a.h5"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_showers(path)


def test_missing_file_and_directory_are_no_input(tmp_path):
    with pytest.raises(MissingInputError, match="No such file"):
        read_showers(tmp_path / "nothing.h5")
    with pytest.raises(MissingInputError, match="not a file"):
        read_showers(tmp_path)


def test_negative_number_of_showers_is_refused(tmp_path):
    with pytest.raises(SettingsError, match="must not be negative"):
        write_input(tmp_path / "a.h5", -1, 0)
