# SPDX-License-Identifier: Apache-2.0
"""Environment and command of a container as base64, unpacked by one line of POSIX shell.

Kubernetes expands ``$(NAME)`` in values and arguments, old SLURM plugins split values at commas and blanks. The cases
that are not about such values send theirs like this, so that what they show does not depend on it.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence

_PREFIX = "OSCARENV_"
# Everything is decoded before anything is exported: a restored PATH must not reach base64. The dot keeps trailing
# newlines, which command substitution would cut; backticks, because Kubernetes looks for $( ).
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


def encode(env: Mapping[str, str | bytes], argv: Sequence[str | bytes]) -> tuple[dict[str, str], list[str], list[str]]:
    """Return a container's environment, command and arguments that stand for the given ones.

    :param env: variables by name.
    :param argv: program and arguments.
    """
    encoded = {f"{_PREFIX}{name}": _base64(value) for name, value in env.items()}
    encoded[f"{_PREFIX}0"] = " ".join(f"_{_base64(word)}" for word in argv)
    return encoded, ["/bin/sh", "-c"], [_DECODER.format(names=" ".join(env))]


def _base64(text: str | bytes) -> str:
    return base64.b64encode(text if isinstance(text, bytes) else text.encode()).decode("ascii")
