# SPDX-License-Identifier: Apache-2.0
"""Which TLS contexts connections share, and which they must not."""

from __future__ import annotations

import os
import ssl

import certifi
import pytest

from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.hooks.http.tls import tls_context


@pytest.fixture
def bundle(tmp_path):
    """A CA bundle of its own."""
    path = tmp_path / "ca.pem"
    with open(certifi.where()) as file:
        path.write_text(file.read().partition("-----END CERTIFICATE-----")[0] + "-----END CERTIFICATE-----\n")
    return path


def test_connections_that_trust_the_same_share_what_was_read(bundle):
    assert tls_context() is tls_context(True, conn_id="another")
    assert tls_context(str(bundle)) is tls_context(str(bundle))
    assert tls_context(str(bundle)) is not tls_context()
    assert tls_context(str(bundle)).verify_mode == ssl.CERT_REQUIRED


def test_a_bundle_that_was_replaced_is_read_again(bundle):
    before = tls_context(str(bundle))
    os.utime(bundle, (1, 1))
    assert tls_context(str(bundle)) is not before


def test_what_is_not_verified_weakens_no_other_connection():
    assert tls_context(False).verify_mode == ssl.CERT_NONE
    assert (tls_context().verify_mode, tls_context().check_hostname) == (ssl.CERT_REQUIRED, True)


def test_a_client_certificate_is_no_other_connections(bundle, tmp_path):
    with pytest.raises(DefinitionError, match="cannot load the TLS files"):
        tls_context(cert_file=str(tmp_path / "none.pem"))
    with pytest.raises(DefinitionError, match="cannot load the TLS files"):
        tls_context(str(tmp_path / "no-bundle.pem"))
    loaded = []

    class Context(ssl.SSLContext):
        def load_cert_chain(self, *files):
            loaded.append(files)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ssl, "create_default_context", lambda **_: Context(ssl.PROTOCOL_TLS_CLIENT))
        mine = tls_context(str(bundle), cert_file="mine.pem")
        assert mine is not tls_context(str(bundle), cert_file="yours.pem")
    assert loaded == [("mine.pem", None), ("yours.pem", None)]
    assert mine is not tls_context(str(bundle))
