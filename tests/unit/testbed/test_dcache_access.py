# SPDX-License-Identifier: Apache-2.0
"""Logins, macaroons and the brake of the embedded dCache."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from oscar_testbed.fakes.dcache.access import Access, AccessError, Principal, attenuate, parse_duration
from oscar_testbed.fakes.dcache.macaroon import Macaroon
from oscar_testbed.faults import DCacheFaults

HERE = "127.0.0.1"


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def access(clock: Clock) -> Access:
    access = Access(DCacheFaults(), clock=clock)
    access.add_user("airflow")
    return access


def _basic(name: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


def _user(access: Access) -> Principal:
    return access.authenticate(_basic("airflow", access.passwords["airflow"]), HERE)


def _mint(access: Access, *caveats: str, path: str = "/", **more: str) -> str:
    body = json.dumps({"caveats": list(caveats), **more}).encode()
    return access.mint(_user(access), path, body, HERE)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Basic",
        "Basic !!!",
        _basic("airflow", "guess"),
        _basic("nobody", ""),
        "Bearer MDAyZWxvY2F0aW9u",
        "Bearer ",
        "Digest x",
    ],
    ids=["none", "empty", "no base64", "wrong password", "no user", "no macaroon", "no token", "other scheme"],
)
def test_anything_but_a_valid_credential_is_401(access: Access, header: str):
    with pytest.raises(AccessError) as refused:
        access.authenticate(header, HERE)
    assert refused.value.status == 401


def test_asserted_roles_do_not_change_the_user(access: Access):
    assert access.authenticate(_basic("airflow#admin", access.passwords["airflow"]), HERE).user == "airflow"


def test_a_token_works_until_it_expires(access: Access, clock: Clock):
    token = access.issue_token("airflow", timedelta(minutes=5))
    assert access.authenticate(f"Bearer {token}", HERE).user == "airflow"
    clock.now += 301
    with pytest.raises(AccessError):
        access.authenticate(f"Bearer {token}", HERE)


def test_a_macaroon_is_held_to_its_activities_and_path(access: Access):
    bearer = access.authenticate("Bearer " + _mint(access, "activity:DOWNLOAD", "path:/in"), HERE)
    assert bearer.allows("DOWNLOAD", "/in/a")
    assert not bearer.allows("UPLOAD", "/in/a")
    assert not bearer.allows("DOWNLOAD", "/inner/a")
    assert not bearer.allows("DOWNLOAD", "/")
    assert bearer.allows("READ_METADATA", "/")


def test_the_requested_path_is_a_path_caveat(access: Access):
    bearer = access.authenticate("Bearer " + _mint(access, path="/out/job"), HERE)
    assert bearer.allows("UPLOAD", "/out/job/x")
    assert not bearer.allows("UPLOAD", "/out/other")


def test_a_macaroon_expires(access: Access, clock: Clock):
    token = _mint(access, validity="PT1H")
    clock.now += 3599
    access.authenticate(f"Bearer {token}", HERE)
    clock.now += 2
    with pytest.raises(AccessError):
        access.authenticate(f"Bearer {token}", HERE)


def test_a_macaroon_of_a_macaroon_is_no_wider(access: Access):
    narrow = access.authenticate("Bearer " + _mint(access, "activity:DOWNLOAD", path="/in"), HERE)
    again = access.mint(narrow, "/", b"", HERE)
    bearer = access.authenticate(f"Bearer {again}", HERE)
    assert not bearer.allows("UPLOAD", "/in/a")
    assert not bearer.allows("DOWNLOAD", "/out")


def test_a_holder_can_narrow_but_not_widen_a_macaroon(access: Access):
    token = _mint(access, "activity:DOWNLOAD,UPLOAD")
    narrow = access.authenticate(f"Bearer {attenuate(token, 'activity:DOWNLOAD')}", HERE)
    assert narrow.activities == {"DOWNLOAD"}
    forged = replace(Macaroon.parsed(token), caveats=Macaroon.parsed(token).caveats[:-1]).serialized()
    for bad in (attenuate(token, "activity:DOWNLOAD,DELETE"), forged):
        with pytest.raises(AccessError):
            access.authenticate(f"Bearer {bad}", HERE)


def test_a_path_caveat_is_below_the_path_so_far(access: Access):
    bearer = access.authenticate("Bearer " + _mint(access, "path:/sub", path="/in"), HERE)
    assert bearer.path == "/in/sub"


def test_an_activity_that_is_none_makes_a_macaroon_for_nobody(access: Access):
    token = _mint(access, "activity:FLY")
    with pytest.raises(AccessError):
        access.authenticate(f"Bearer {token}", HERE)


@given(st.text(max_size=40), st.lists(st.text(max_size=40), max_size=5), st.binary(min_size=1, max_size=40))
def test_a_macaroon_survives_its_wire_format_and_no_change(location: str, caveats: list[str], secret: bytes):
    texts = [text.encode("utf-8", "replace").decode() for text in (location, *caveats)]
    made = Macaroon.signed(secret, location=texts[0], identifier="id", caveats=texts[1:])
    again = Macaroon.parsed(made.serialized())
    assert again == made
    assert again.authentic(secret)
    assert not again.authentic(secret + b"x")
    assert not replace(again, caveats=(*again.caveats, "path:/")).authentic(secret)


@given(st.text(max_size=60))
def test_what_is_no_macaroon_is_said_to_be_none(text: str):
    with pytest.raises(ValueError):  # noqa: PT011  # its words are for people
        Macaroon.parsed(text)


def test_a_macaroon_for_other_addresses_is_refused(access: Access):
    token = _mint(access, "ip:10.0.0.0/8")
    with pytest.raises(AccessError):
        access.authenticate(f"Bearer {token}", HERE)
    assert access.authenticate(f"Bearer {token}", "10.1.2.3").user == "airflow"


@pytest.mark.parametrize(
    "caveat", ["before:soon", "before:2001-01-01T00:00:00Z", "before:2999-01-01T00:00:00Z", "colour:red", "nonsense"]
)
def test_a_bad_caveat_is_400(access: Access, caveat: str):
    with pytest.raises(AccessError) as refused:
        _mint(access, caveat)
    assert refused.value.status == 400


def test_three_bad_logins_bar_the_address_for_ten_seconds(access: Access, clock: Clock):
    for _ in range(2):
        access.note_unauthorized("door", HERE)
    assert not access.barred("door", HERE)
    access.note_unauthorized("door", HERE)
    assert access.barred("door", HERE) == 10
    assert not access.barred("door", "10.0.0.1")
    assert not access.barred("frontend", HERE)
    clock.now += 10
    assert not access.barred("door", HERE)


def test_slow_bad_logins_do_not_bar(access: Access, clock: Clock):
    for _ in range(5):
        access.note_unauthorized("door", HERE)
        clock.now += 11
    assert not access.barred("door", HERE)


def test_no_secret_is_shown(access: Access):
    assert access.passwords["airflow"] not in repr(access)


@given(st.integers(0, 400), st.integers(0, 23), st.integers(0, 59), st.integers(0, 59))
def test_durations_are_read(days: int, hours: int, minutes: int, seconds: int):
    expected = timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
    assert parse_duration(f"P{days}DT{hours}H{minutes}M{seconds}S") == expected


@pytest.mark.parametrize("text", ["", "P", "PT", "1H", "P1Y", "PT1.5H"])
def test_what_is_no_duration_is_refused(text: str):
    with pytest.raises(ValueError, match="duration"):
        parse_duration(text)
