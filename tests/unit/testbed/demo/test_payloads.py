# SPDX-License-Identifier: Apache-2.0
"""What the jobs of the demo on the real stack run: the payload of this repository, or itwinai."""

from __future__ import annotations

import re

import pytest
from oscar_testbed.demo.system.image import PIPELINE
from oscar_testbed.demo.system.setting import with_itwinai
from oscar_testbed.errors import MissingPrerequisite

from tests.support.dag_files import load


def words(script: str) -> set[str]:
    """What a script hands to ``itwinai exec-pipeline``, without values."""
    return set(re.findall(r'[ "](\+?[a-z_]+)=', script.partition("exec-pipeline")[2]))


def test_the_image_calls_itwinai_as_the_example_does():
    assert words(PIPELINE) == words(load("itwinai_inference").PIPELINE)
    assert "+pipe_key" in words(PIPELINE)


@pytest.mark.parametrize(("environment", "wanted"), [({}, False), ({"DEMO_PAYLOAD": "itwinai"}, True)])
def test_a_variable_names_the_payload(environment, wanted):
    assert with_itwinai(environment) is wanted


def test_a_payload_that_is_not_there_is_refused_with_those_that_are():
    with pytest.raises(MissingPrerequisite, match=r"DEMO_PAYLOAD names 'other'; there is 'itwinai'"):
        with_itwinai({"DEMO_PAYLOAD": "other"})
