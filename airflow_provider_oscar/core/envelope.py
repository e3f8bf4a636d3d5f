# SPDX-License-Identifier: Apache-2.0
"""The envelope: environment and command of a container as base64, unpacked by one line of POSIX shell.

Kubernetes expands ``$(NAME)`` in values and arguments, old SLURM plugins split values at commas and
blanks, and some container runtimes read them once more with a shell. Letters, digits and ``+/=`` survive
all of them; the decoder below restores names, values and arguments byte for byte and ``exec``s the
command. It needs ``sh`` and ``base64`` in the image, nothing else. It hides nothing: secrets travel in a
Secret (:mod:`airflow_provider_oscar.jobs.spec`).
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from airflow_provider_oscar.core.errors import DefinitionError, quoted

#: Prefix of every encoded variable. What follows starts with a digit for the envelope's own ones.
PREFIX = "OSCARENV_"
#: Linux allows 128 KiB for one ``NAME=value`` string, terminator included.
VARIABLE_LIMIT = 128 * 1024 - 1

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ARGUMENTS = f"{PREFIX}0"

# Everything is decoded before anything is exported: a restored PATH or LD_LIBRARY_PATH must not reach base64.
# The dot keeps trailing newlines, which command substitution would cut; backticks, because Kubernetes
# looks for $( ); no argument is empty, so that word splitting keeps them all.
_DECODER = (
    "command -v base64 >/dev/null 2>&1 || "
    "{{ echo 'airflow-oscar: the image has no base64 program, which unpacks the environment' >&2; exit 127; }}; "
    'for OSCARENV_1 in {names}; do eval "OSCARENV_2=\\$OSCARENV_$OSCARENV_1"; '
    'OSCARENV_2=`printf %s "$OSCARENV_2" | base64 -d && printf .` || exit 78; '
    'eval "OSCARENV_$OSCARENV_1=\\${{OSCARENV_2%.}}"; done; '
    "set --; for OSCARENV_1 in $OSCARENV_0; do "
    'OSCARENV_2=`printf %s "${{OSCARENV_1#_}}" | base64 -d && printf .` || exit 78; '
    'set -- "$@" "${{OSCARENV_2%.}}"; done; '
    'for OSCARENV_1 in {names}; do eval "export $OSCARENV_1=\\"\\$OSCARENV_$OSCARENV_1\\""; '
    'unset "OSCARENV_$OSCARENV_1"; done; '
    'unset OSCARENV_0 OSCARENV_1 OSCARENV_2; exec "$@"'
)


@dataclass(frozen=True, slots=True)
class EncodedCommand:
    """What goes into a container: ``env`` as name and value, ``command`` and ``args`` as Kubernetes has them."""

    env: dict[str, str]
    command: list[str]
    args: list[str]


def encode(env: Mapping[str, str | bytes], argv: Sequence[str | bytes], *, plain: bool = False) -> EncodedCommand:
    """Wrap environment and command.

    :param env: variables; any bytes but NUL. Text is UTF-8, with surrogate escapes for other bytes.
    :param argv: program and arguments, any bytes but NUL.
    :param plain: leave both as they are, for images without a shell; then Kubernetes and the SLURM plugin
        see, and may expand or split, every value.
    :raises DefinitionError: if a name is not a shell identifier, a value has a NUL or does not fit one
        variable, or there is no command.
    """
    for name in env:
        if not _NAME.fullmatch(name) or name.startswith(PREFIX):
            raise DefinitionError(
                f"the variable name {quoted(name)} cannot be used; expected letters, digits and underscores, "
                f"no digit first, and not the prefix {PREFIX}"
            )
    if not argv or not argv[0]:
        raise DefinitionError("there is no command to run; expected a list of program and arguments")
    if plain:
        words = [_text(word, f"argument {number}") for number, word in enumerate(argv)]
        return EncodedCommand({name: _text(value, name) for name, value in env.items()}, words[:1], words[1:])
    encoded = {f"{PREFIX}{name}": _base64(_bytes(value, name)) for name, value in env.items()}
    encoded[_ARGUMENTS] = " ".join(f"_{_base64(_bytes(word, f'argument {n}'))}" for n, word in enumerate(argv))
    for name, value in encoded.items():
        if len(name) + 1 + len(value) > VARIABLE_LIMIT:
            what = "the command line" if name == _ARGUMENTS else f"the variable {name.removeprefix(PREFIX)}"
            raise DefinitionError(
                f"{what} takes {len(value)} bytes encoded, Linux allows {VARIABLE_LIMIT} for one variable; "
                "pass it as a file (an input object, or a job specification)"
            )
    return EncodedCommand(encoded, ["/bin/sh", "-c"], [_DECODER.format(names=" ".join(env))])


def decode_environment(env: Mapping[str, str]) -> dict[str, bytes]:
    """Return the variables an encoded environment stands for; plain ones are left out."""
    names = {name.removeprefix(PREFIX): value for name, value in env.items() if name.startswith(PREFIX)}
    return {name: base64.b64decode(value) for name, value in names.items() if _NAME.fullmatch(name)}


def decode_arguments(env: Mapping[str, str]) -> list[bytes]:
    """Return the program and arguments an encoded environment carries."""
    return [base64.b64decode(word.removeprefix("_")) for word in env[_ARGUMENTS].split(" ")]


def _bytes(value: str | bytes, about: str) -> bytes:
    raw = value if isinstance(value, bytes) else value.encode("utf-8", "surrogateescape")
    if b"\0" in raw:
        raise DefinitionError(f"{about} contains a NUL character, which no Unix program can be given")
    return raw


def _text(value: str | bytes, about: str) -> str:
    try:
        return _bytes(value, about).decode("utf-8")
    except UnicodeDecodeError as error:
        raise DefinitionError(
            f"{about} is not UTF-8 text, so that it cannot travel plain; leave out plain=True"
        ) from error


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode("ascii")
