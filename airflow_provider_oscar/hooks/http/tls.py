# SPDX-License-Identifier: Apache-2.0
"""How a connection's ``verify`` becomes an SSL context: system CAs, a CA file, or an IGTF directory."""

from __future__ import annotations

import logging
import ssl
from functools import lru_cache
from pathlib import Path

from airflow_provider_oscar.core.errors import DefinitionError, quoted

log = logging.getLogger(__name__)


def tls_context(
    verify: bool | str = True, *, cert_file: str = "", key_file: str = "", conn_id: str = ""
) -> ssl.SSLContext:
    """Return a client context.

    :param verify: True for the system's CAs, False for no verification (logged as a warning), or the path of
        a CA bundle or of a hashed directory such as ``/etc/grid-security/certificates``.
    :param cert_file: client certificate with its chain, or a proxy file that holds the key as well; empty for none.
    :param key_file: private key, when it is not in ``cert_file``.
    :param conn_id: connection named in messages.
    :raises DefinitionError: if a file is missing or not usable.
    """
    try:
        if verify is False:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # needs no CAs
        else:
            # One with a certificate of its own is not shared with other connections.
            context = _verifying(verify) if cert_file else _shared(verify)
        if cert_file:
            context.load_cert_chain(cert_file, key_file or None)
    except (OSError, ssl.SSLError) as error:
        raise DefinitionError(
            f"connection {conn_id!r}: cannot load the TLS files (verify={verify!r}, cert_file={cert_file!r}, "
            f"key_file={key_file!r}): {quoted(error)}; correct the paths in the connection's extra"
        ) from error
    if verify is False:
        log.warning("Connection %r: TLS certificates are not verified, because its extra says so", conn_id)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _shared(verify: bool | str) -> ssl.SSLContext:
    """Return the context of all connections that trust the same; reading the system's CAs takes 20 ms or more."""
    default = ssl.get_default_verify_paths()
    places = [verify] if isinstance(verify, str) else [default.cafile, default.capath]
    return _known(verify, tuple((place, Path(place).stat().st_mtime_ns) for place in places if place))


@lru_cache(maxsize=32)
def _known(verify: bool | str, read: tuple[tuple[str, int], ...]) -> ssl.SSLContext:
    # ``read`` makes it another one once the files changed.
    return _verifying(verify)


def _verifying(verify: bool | str) -> ssl.SSLContext:
    if isinstance(verify, bool):
        return ssl.create_default_context()
    if Path(verify).is_dir():
        return ssl.create_default_context(capath=verify)
    return ssl.create_default_context(cafile=verify)


def read_verify(value: object, *, conn_id: str) -> bool | str:
    """Read the extra ``verify``: a boolean, one written as text (forms do that), or a path.

    :raises DefinitionError: if it is something else.
    """
    if value is None or value == "":
        return True
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        return {"true": True, "false": False}.get(value.strip().lower(), value)
    raise DefinitionError(
        f"connection {conn_id!r}: extra 'verify' is {quoted(value)}; "
        "expected true, false, or the path of a CA file or directory"
    )


def untrusted(error: BaseException) -> str:
    """Return why a server's certificate is not trusted, if an error of any client comes from that; else nothing.

    :param error: whose causes are looked at.
    """
    cause: BaseException | None = error
    reason = ""
    for _ in range(10):
        if cause is None:
            break
        if isinstance(cause, ssl.SSLCertVerificationError):
            # Only those that OpenSSL raised itself have the message, and others, such as aiohttp's, wrap one of them.
            reason = str(getattr(cause, "verify_message", "") or reason or type(cause).__name__)
        cause = cause.__cause__ or cause.__context__
    return reason
