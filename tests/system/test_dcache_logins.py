# SPDX-License-Identifier: Apache-2.0
"""The provider at a real dCache with other logins than a password: a client certificate, tokens of an issuer."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.hooks.dcache import DCacheHook, rest
from airflow_provider_oscar.supervisor import stage_in as supervised
from airflow_provider_oscar.supervisor.spec import read_input
from tests.support.watching import watching
from tests.system.dcache_site import PATIENCE, DCacheSite, until, variable
from tests.system.token_issuer import TokenIssuer, issuing

HOUR = timedelta(hours=1)
Login = dict[str, object]


@pytest.fixture(scope="module")
def issuer() -> Iterator[TokenIssuer]:
    """The issuer that dCache trusts, served from here."""
    url, pem, subject = map(variable, ("DCACHE_ISSUER", "DCACHE_ISSUER_PEM", "DCACHE_ISSUER_SUBJECT"))
    with issuing(url, Path(pem), subject) as found:
        yield found


def _certificate(request: pytest.FixtureRequest) -> Login:
    return {"auth": "x509", "cert_file": variable("DCACHE_CERTIFICATE")}


def _token(request: pytest.FixtureRequest) -> Login:
    return {"token": request.getfixturevalue("issuer").token()}


def _token_file(request: pytest.FixtureRequest) -> Login:
    path = request.getfixturevalue("tmp_path") / "token"
    path.write_text(request.getfixturevalue("issuer").token())
    return {"token_file": str(path)}


def _discovered(request: pytest.FixtureRequest) -> Login:
    path = request.getfixturevalue("tmp_path") / "token"
    path.write_text(request.getfixturevalue("issuer").token())
    request.getfixturevalue("monkeypatch").setenv("BEARER_TOKEN_FILE", str(path))
    return {"auth": "wlcg"}


LOGINS: list[Callable[[pytest.FixtureRequest], Login]] = [_certificate, _token, _token_file, _discovered]


@pytest.fixture(params=LOGINS, ids=lambda login: login.__name__.strip("_"))
def login(request: pytest.FixtureRequest) -> Login:
    """Extras of a connection that has no password."""
    return request.param(request)


@contextlib.contextmanager
def opened(site: DCacheSite, login: Login, frontend: str = "") -> Iterator[DCacheHook]:
    """A hook with this login and no other."""
    with site.hook(site.base, frontend=frontend, with_password=False, **login) as hook:
        yield hook


@pytest.mark.parametrize("frontend", ["", "none"], ids=["frontend", "door alone"])
def test_it_is_all_that_a_connection_needs(dcache_site, login, frontend):
    with opened(dcache_site, login, frontend) as hook:
        connected, said = hook.test_connection()
        assert connected, said
        hook.put_bytes("/logins", "ü f", b"input")
        assert "ü f" in [event.key for event in hook.list_directory("/logins")]
        event = hook.head("/logins", "ü f")
        assert hook.read_bytes(event.uri, 10) == b"input"
        hook.move("/logins/ü f", "/logins/moved")
        hook.delete("/logins", "moved")
        assert not hook.exists("/logins", "moved")


def test_a_job_gets_a_macaroon_and_never_the_login(dcache_site, login, monkeypatch, tmp_path):
    if dcache_site.ca:
        monkeypatch.setenv("SSL_CERT_FILE", dcache_site.ca)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with opened(dcache_site, login) as hook:
        hook.put_bytes("/logins", "input", b"input")
        given = hook.stage_in(hook.head("/logins", "input"), lifetime=HOUR)
        assert str(login.get("token", "no token")) not in repr(msgspec.to_builtins(given))
        assert supervised.stage_in([read_input(msgspec.to_builtins(given))], str(scratch)) == [5]
        place = hook.stage_out("dcache://dcache_default/out/", submission_id="logins", lifetime=HOUR, max_bytes=100)
        assert set(dict(place.headers)) == {"Authorization"}


async def test_a_watcher_hears_with_it(dcache_site, login, monkeypatch):
    fields = dcache_site.fields(dcache_site.base, with_password=False, **login)
    monkeypatch.setenv("AIRFLOW_CONN_DCACHE_DEFAULT", json.dumps(fields))
    with opened(dcache_site, login) as hook:
        hook.make_directory("/heard")
        async with watching("/heard") as watch:
            listings = watch.listings
            await asyncio.to_thread(hook.put_bytes, "/heard", "new", b"1")
            await watch.until(lambda: "new" in watch.heard, seconds=PATIENCE)
            assert watch.listings == listings
        hook.delete("/", "heard")


class TestTokens:
    """Tokens that are not as they should be."""

    @pytest.fixture(autouse=True)
    def not_barred(self, dcache_site):
        """Three refused logins bar an address for ten seconds."""
        until(dcache_site.version)

    def test_an_expired_token_is_refused_with_the_remedy(self, dcache_site, issuer):
        with (
            opened(dcache_site, {"token": issuer.token(seconds=-10)}) as hook,
            pytest.raises(DefinitionError, match="token"),
        ):
            hook.list_entries("/")

    def test_a_file_that_is_renewed_is_read_again(self, dcache_site, issuer, tmp_path):
        path = tmp_path / "token"
        path.write_text(issuer.token(seconds=-10))
        with opened(dcache_site, {"token_file": str(path)}) as hook:
            with pytest.raises(DefinitionError):
                hook.list_entries("/")
            path.write_text(issuer.token())
            hook.list_entries("/")

    def test_a_token_of_somebody_else_is_not_us(self, dcache_site, issuer):
        with opened(dcache_site, {"token": issuer.token(sub="nobody-we-know")}) as hook:
            connected, said = hook.test_connection()
        assert not connected
        assert "nobody-we-know" not in said

    def test_nothing_of_a_token_is_shown(self, dcache_site, issuer):
        token = issuer.token(seconds=-10)
        with opened(dcache_site, {"token": token}) as hook:
            connected, said = hook.test_connection()
            assert not connected
            assert not any(part in said + repr(hook.settings) for part in token.split("."))

    def test_dcache_knows_whom_a_token_is_for(self, dcache_site, issuer):
        with opened(dcache_site, {"token": issuer.token()}) as hook:
            assert hook.run(rest.user(hook.frontend))["username"] == dcache_site.user
