# SPDX-License-Identifier: Apache-2.0
"""Values that shells, YAML, JSON and environment files break when they are careless; each must arrive byte for byte."""

from __future__ import annotations

#: By what they are about. The last is not UTF-8: what ``os.fsdecode`` makes of the byte E9.
NASTY_VALUES = {
    "empty": "",
    "single quote": "it's 'quoted'",
    "double quote": 'say "hello"',
    "both quotes": "a'b\"c'\"d",
    "json": '{"a": ["b\\n", null], "c": "d\'e"}',
    "backticks": "`id` and `touch /tmp/x`",
    "dollar": "$HOME ${PATH} $(id) $$ $1 $(HOME)",
    "backslash": "C:\\new\\table \\\\ \\",
    "blanks": "  leading, two  inside, trailing  ",
    "tab and carriage return": "a\tb\rc\r\nd",
    "newlines": "first\n\n  third\n",
    "trailing newlines": "end\n\n\n",
    "unicode": "größe 日本語 \u202e\u00a0",
    "emoji": "\U0001f600\u200d\U0001f52c",
    "separators": "a,b;c=d&e|f>g<h #i !j ~k",
    "globs and percent": "*?[a-z] %s %d 100% {a,b}",
    "option": "--export=ALL -n",
    "not utf-8": "caf\udce9",
}


def as_bytes(value: str) -> bytes:
    """The value as a process sees it."""
    return value.encode("utf-8", "surrogateescape")


#: Writes its variables VALUE_0, VALUE_1… and its arguments, each behind its length, to the output ``got``.
SHOW = """\
import os, sys
found = []
while b"VALUE_%d" % len(found) in os.environb:
    found.append(os.environb[b"VALUE_%d" % len(found)])
found += [os.fsencode(word) for word in sys.argv[1:]]
with open(os.path.join(os.environ["TMP_OUTPUT_DIR"], "got"), "wb") as file:
    for value in found:
        file.write(b"%d " % len(value) + value)
"""

ENVIRONMENT = {f"VALUE_{number}": value for number, value in enumerate(NASTY_VALUES.values())}
COMMAND = ["python3", "-c", SHOW, *NASTY_VALUES.values()]
EXPECTED = b"".join(b"%d " % len(as_bytes(value)) + as_bytes(value) for value in [*NASTY_VALUES.values()] * 2)
