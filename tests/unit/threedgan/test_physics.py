# SPDX-License-Identifier: Apache-2.0
"""Observables, on showers whose answers are known."""

from __future__ import annotations

import numpy as np
import pytest
from threedgan.data import synthetic_showers
from threedgan.physics import EMPTY_ANGLE, measured_angles, profile_distance, profiles, to_gev


def test_angle_of_synthetic_showers_is_measured_well_within_a_milliradian():
    showers = synthetic_showers(20, seed=1)
    np.testing.assert_allclose(measured_angles(showers["ECAL"]), showers["theta"], atol=5e-4)


def test_angle_of_a_straight_line_of_cells_is_exact():
    image = np.zeros((1, 51, 51, 25))
    for z in range(24):  # an even number: a slice at the barycentre itself has no direction
        image[0, 25, 12 + z, z] = 1.0
    assert measured_angles(image)[0] == pytest.approx(np.pi / 4, abs=1e-12)


def test_empty_shower_measures_the_reference_sentinel():
    assert measured_angles(np.zeros((1, 51, 51, 25)))[0] == EMPTY_ANGLE


def test_no_showers_measure_nothing():
    assert measured_angles(np.zeros((0, 51, 51, 25))).shape == (0,)


def test_gev_undoes_power_and_scale():
    gev = np.array([0.0, 0.004, 2.0], np.float32)
    np.testing.assert_allclose(to_gev((gev * 50) ** np.float32(0.85)), gev, rtol=1e-5)


def test_profiles_add_up_to_the_energy():
    images = synthetic_showers(3, seed=2)["ECAL"]
    assert [profile.sum() for profile in profiles(images)] == pytest.approx([float(images.sum())] * 3, rel=1e-5)


def test_profile_distance_is_zero_for_equal_and_one_for_disjoint_shapes():
    one = np.array([1.0, 0.0])
    assert profile_distance(one, 5 * one) == 0
    assert profile_distance(one, one[::-1]) == 1


def test_synthetic_showers_have_the_sampling_fraction_of_the_reference():
    showers = synthetic_showers(5, seed=3)
    np.testing.assert_allclose(showers["ECAL"].sum(axis=(1, 2, 3)) / 50 / showers["energy"], 0.02, rtol=1e-4)
