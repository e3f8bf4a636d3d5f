# SPDX-License-Identifier: Apache-2.0
"""What travels in OSCAR's ``EVENT``: unreadable and unchangeable without the key of the service.

Keeps row T9 of the threat model true (docs/security.md).
"""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.core.services import ServiceDefinition
from airflow_provider_oscar.jobs import sealing
from airflow_provider_oscar.jobs.sealing import KEY_VARIABLE, seal, seal_for, service_keys, with_key
from airflow_provider_oscar.jobs.signing import Signer
from airflow_provider_oscar.supervisor.errors import StageError
from airflow_provider_oscar.supervisor.sealing import is_sealed, opened

SIGNER = Signer((b"newest", b"older"))
KEYS = service_keys(SIGNER, "svc")
NEWEST, OLDER = KEYS
HEX = {name: key.hex() for name, key in KEYS.items()}


@given(st.binary(max_size=3000))
def test_the_supervisor_opens_what_was_sealed_for_its_service(document):
    sealed = seal_for(SIGNER, "svc", [NEWEST], document)
    assert is_sealed(sealed)
    assert opened(sealed, HEX) == document


@given(st.binary(min_size=16, max_size=200), st.data())
def test_a_changed_bit_is_noticed_wherever_it_is(document, data):
    sealed = bytearray(seal_for(SIGNER, "svc", [NEWEST], document))
    place = data.draw(st.integers(len(b"airflow-oscar-sealed-1 "), len(sealed) - 1))
    sealed[place] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(StageError, match="was changed on its way|with the key is not there"):
        opened(bytes(sealed), HEX)


def test_nothing_of_it_can_be_read_and_it_never_looks_the_same():
    url = "https://store/b/k?X-Amz-Signature=0123456789abcdef"
    first, second = (seal_for(SIGNER, "svc", [NEWEST], json.dumps({"url": url}).encode()) for _ in range(2))
    assert first != second
    for text in (first, base64.b64encode(first)):
        assert b"X-Amz" not in text
        assert b"https" not in text


def test_another_service_and_another_airflow_cannot_open_it():
    sealed = seal_for(SIGNER, "svc", [NEWEST], b"{}")
    others = service_keys(SIGNER, "other") | service_keys(Signer((b"another",)), "svc")
    assert not others.keys() & KEYS.keys()
    with pytest.raises(StageError, match=f"the variable {NEWEST} with the key is not there"):
        opened(sealed, {name: key.hex() for name, key in others.items()})
    with pytest.raises(StageError, match="sealed with another key"):
        opened(sealed, {NEWEST: bytes(32).hex()})


def test_a_service_with_a_key_from_before_a_rotation_is_still_served():
    assert opened(seal_for(SIGNER, "svc", [OLDER], b"{}"), HEX) == b"{}"


@pytest.mark.parametrize(
    ("secrets", "words"),
    [([], "no key"), (["PASSWORD"], "no key"), ([KEY_VARIABLE + "00000000"], "key of another Airflow")],
)
def test_a_service_without_our_key_is_refused_with_the_remedy(secrets, words):
    with pytest.raises(DefinitionError, match=rf"{words}.*apply it again.*allow_plain_specifications"):
        seal_for(SIGNER, "svc", secrets, b"{}")


def test_only_a_service_of_the_supervisor_gets_a_key():
    ours = ServiceDefinition(name="svc", image="i", script="OSCAR_SUPERVISOR='x'", environment={"secrets": {"A": "1"}})
    assert with_key(ours, SIGNER).environment["secrets"] == {"A": "1", NEWEST: HEX[NEWEST]}
    foreign = ServiceDefinition(name="svc", image="i", script="#!/bin/sh\n")
    assert with_key(foreign, SIGNER) == foreign


def test_a_service_of_somebody_else_is_applied_by_an_airflow_without_a_signing_key(monkeypatch):
    monkeypatch.setattr(sealing, "configured_signer", lambda: Signer.from_setting(""))
    foreign = ServiceDefinition(name="svc", image="i", script="#!/bin/sh\n")
    assert with_key(foreign) == foreign
    with pytest.raises(DefinitionError, match="signing_key"):
        with_key(ServiceDefinition(name="svc", image="i", script="OSCAR_SUPERVISOR='x'"))


def test_a_document_that_unpacks_to_too_much_is_refused(monkeypatch):
    monkeypatch.setattr("airflow_provider_oscar.supervisor.sealing.SPEC_LIMIT", 1000)
    sealed = seal(bytes(100_000), KEYS[NEWEST], NEWEST.removeprefix(KEY_VARIABLE))
    with pytest.raises(StageError, match="more than 1000 bytes"):
        opened(sealed, HEX)
