# SPDX-License-Identifier: Apache-2.0
"""Job specifications that nobody can read who may look at OSCAR's pods.

OSCAR hands the body of a request to the pod as the variable ``EVENT``, for whoever may read pods, and a specification
holds presigned URLs and the key of the result. So it is sealed with a key of the service: derived from what signs
results, kept by OSCAR in the Secret of the service (``environment.secrets``), and never returned by its API. The name
of the secret variable names the key, so that a job is sealed for what the service has, and another key is a difference
that an apply notices. The format is that of ``supervisor/sealing.py``, which shares no code with this module.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import zlib
from collections.abc import Collection

from msgspec.structs import replace

from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.core.services import ServiceDefinition
from airflow_provider_oscar.hooks.oscar.submissions import SUPERVISOR_MARK
from airflow_provider_oscar.jobs.signing import Signer, configured_signer

MAGIC = b"airflow-oscar-sealed-1 "
#: Secret variable of a service that holds the key; the key's name follows.
KEY_VARIABLE = "OSCAR_SUPERVISOR_KEY_"
_KEY_ID_LENGTH = 8


def service_keys(signer: Signer, service: str) -> dict[str, bytes]:
    """Return the keys of a service by the name of their variable, the newest first."""
    keys = (hmac.new(master, b"service\0" + service.encode(), hashlib.sha256).digest() for master in signer.masters)
    return {KEY_VARIABLE + hashlib.sha256(b"id" + key).hexdigest()[:_KEY_ID_LENGTH].upper(): key for key in keys}


def with_key(definition: ServiceDefinition, signer: Signer | None = None) -> ServiceDefinition:
    """Return the definition with its key among its secrets, if its script is this provider's supervisor.

    :param signer: of this Airflow; None for the configured one, which a service with another script does not need.
    """
    if SUPERVISOR_MARK not in definition.script:
        return definition
    name, key = next(iter(service_keys(signer or configured_signer(), definition.name).items()))
    given = definition.environment
    return replace(definition, environment={**given, "secrets": {**given.get("secrets", {}), name: key.hex()}})


def seal_for(signer: Signer, service: str, secrets: Collection[str], document: bytes) -> bytes:
    """Return a specification that only a job of the service can read.

    :param signer: of this Airflow.
    :param service: name of the service.
    :param secrets: names of the secret variables that the service has.
    :param document: the specification.
    :raises DefinitionError: if the service has no key of this Airflow.
    """
    for name, key in service_keys(signer, service).items():
        if name in secrets:
            return seal(document, key, name.removeprefix(KEY_VARIABLE))
    other = any(name.startswith(KEY_VARIABLE) for name in secrets)
    raise DefinitionError(
        f"OSCAR service {service!r} has {'the key of another Airflow' if other else 'no key'} for the specifications "
        "of its jobs, which would be readable in its pods; apply it again with OscarServiceOperator or `airflow oscar "
        "services apply`"
        + (" (Airflows that share a service need the same [oscar] signing_key)" if other else "")
        + ". For an OSCAR before 3.4, which has no secrets, the connection's extra allow_plain_specifications lets "
        "them travel in clear"
    )


def seal(document: bytes, key: bytes, key_id: str) -> bytes:
    """Return a document sealed with a key: packed, encrypted, authenticated.

    :param document: what is sealed.
    :param key: 32 bytes.
    :param key_id: eight characters that name it.
    """
    head, nonce = MAGIC + key_id.encode("ascii"), os.urandom(16)
    packed = zlib.compress(document, 9)
    cipher = _mixed(packed, key, nonce)
    return head + nonce + _keyed(_keyed(key, b"authenticate"), head + nonce + cipher) + cipher


def unsealed(raw: bytes, key: bytes, limit: int) -> bytes | None:
    """Return what :func:`seal` sealed; None if it was not sealed with this key, or is longer than the limit."""
    head = len(MAGIC) + _KEY_ID_LENGTH
    nonce, tag, cipher = raw[head : head + 16], raw[head + 16 : head + 48], raw[head + 48 :]
    wanted = _keyed(_keyed(key, b"authenticate"), raw[:head] + nonce + cipher)
    if not raw.startswith(MAGIC) or not hmac.compare_digest(tag, wanted):
        return None
    unpacking = zlib.decompressobj()
    plain = unpacking.decompress(_mixed(cipher, key, nonce), limit)
    return None if unpacking.unconsumed_tail else plain


def _mixed(data: bytes, key: bytes, nonce: bytes) -> bytes:
    """Return the data, every bit of it inverted where the key's stream has a one."""
    stream = b"".join(
        _keyed(_keyed(key, b"encrypt"), nonce + number.to_bytes(8, "big")) for number in range(-(-len(data) // 32))
    )
    mixed = int.from_bytes(data, "big") ^ int.from_bytes(stream[: len(data)], "big")
    return mixed.to_bytes(len(data), "big")


def _keyed(key: bytes, data: bytes) -> bytes:
    return hmac.new(key, data, hashlib.sha256).digest()
