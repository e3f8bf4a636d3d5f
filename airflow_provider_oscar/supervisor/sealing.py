# SPDX-License-Identifier: Apache-2.0
"""Opens a job specification that travelled where others can read, as in the variable ``EVENT`` of OSCAR's pods.

The standard library has no cipher, so the stream is HMAC-SHA256 in counter mode, and HMAC-SHA256 over all of it proves
that it is whole (encrypt, then authenticate; both keys derived from one). ``jobs/sealing.py`` is the other side.
"""

from __future__ import annotations

import hashlib
import hmac
import zlib
from typing import Mapping

from airflow_provider_oscar.supervisor.spec import SPEC_LIMIT, bad_spec

#: A sealed specification begins with this, followed by eight characters that name the key.
MAGIC = b"airflow-oscar-sealed-1 "
KEY_ID_LENGTH = 8
#: Variables that hold keys, each followed by the name of its key; OSCAR takes them from the service's Secret.
KEY_VARIABLE = "OSCAR_SUPERVISOR_KEY_"
NONCE_LENGTH, TAG_LENGTH, BLOCK_LENGTH = 16, 32, 32


def is_sealed(raw: bytes) -> bool:
    """Return whether a specification has to be opened."""
    return raw.startswith(MAGIC)


def opened(raw: bytes, environment: Mapping[str, str]) -> bytes:
    """Return what was sealed.

    :param environment: has the key.
    :raises StageError: if there is no key for it, or it is not what was sealed with it.
    """
    head = len(MAGIC) + KEY_ID_LENGTH
    name = KEY_VARIABLE + raw[len(MAGIC) : head].decode("ascii", "replace")
    text = environment.get(name, "")
    if not text:
        bad_spec(
            f"it is sealed, and the variable {name} with the key is not there; apply the service with the Airflow that "
            "submits the job (OscarServiceOperator, or airflow oscar services apply)"
        )
    try:
        key = bytes.fromhex(text)
    except ValueError:
        bad_spec(f"the variable {name} holds no key")
    return opened_with(raw, key)


def opened_with(raw: bytes, key: bytes) -> bytes:
    """Return what was sealed with a key.

    :raises StageError: if it is not what was sealed with it.
    """
    head = len(MAGIC) + KEY_ID_LENGTH
    nonce, tag = raw[head : head + NONCE_LENGTH], raw[head + NONCE_LENGTH : head + NONCE_LENGTH + TAG_LENGTH]
    cipher = raw[head + NONCE_LENGTH + TAG_LENGTH :]
    wanted = hmac.new(derived(key, b"authenticate"), raw[:head] + nonce + cipher, hashlib.sha256).digest()
    if not hmac.compare_digest(tag, wanted):
        bad_spec("it was changed on its way, or sealed with another key")
    unpacking = zlib.decompressobj()
    plain = unpacking.decompress(streamed(cipher, derived(key, b"encrypt"), nonce), SPEC_LIMIT)
    if unpacking.unconsumed_tail:
        bad_spec(f"it has more than {SPEC_LIMIT} bytes")
    return plain


def derived(key: bytes, purpose: bytes) -> bytes:
    """Return a key for one purpose."""
    return hmac.new(key, purpose, hashlib.sha256).digest()


def streamed(data: bytes, key: bytes, nonce: bytes) -> bytes:
    """Return the data, every bit of it inverted where the key's stream has a one; its own inverse."""
    blocks = range(-(-len(data) // BLOCK_LENGTH))
    stream = b"".join(hmac.new(key, nonce + number.to_bytes(8, "big"), hashlib.sha256).digest() for number in blocks)
    mixed = int.from_bytes(data, "big") ^ int.from_bytes(stream[: len(data)], "big")
    return mixed.to_bytes(len(data), "big")
