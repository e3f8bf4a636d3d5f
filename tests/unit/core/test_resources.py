# SPDX-License-Identifier: Apache-2.0
"""Memory is bytes to Kubernetes, and people who know SLURM or Docker mean megabytes."""

from __future__ import annotations

import pytest

from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.core.resources import check_resources


@pytest.mark.parametrize("given", ["4096", "512m", "0.5", "100000"])
@pytest.mark.parametrize("name", ["memory", "ephemeral-storage"])
def test_a_few_bytes_are_not_what_was_meant(name, given):
    meant = given.rstrip("m")
    with pytest.raises(DefinitionError, match=f"target: {name} is '{given}', which is a number of bytes.*'{meant}Mi'"):
        check_resources({name: given}, "target")


@pytest.mark.parametrize(
    ("name", "given"),
    [("memory", "0"), ("memory", "4Gi"), ("memory", "536870912"), ("memory", "{{ params.mib }}"), ("cpu", "500m")],
)
def test_what_may_be_meant_is_taken(name, given):
    assert check_resources({name: given}, "target") == {name: given}
