# SPDX-License-Identifier: Apache-2.0
"""Values that hold capabilities or secrets and do not show them."""

from __future__ import annotations

from typing import ClassVar

import msgspec


class Redacted(msgspec.Struct, frozen=True):
    """A value whose ``repr``, and so every log line and traceback, leaves out some of its fields.

    :cvar redacted: names of these fields.
    """

    redacted: ClassVar[frozenset[str]] = frozenset()

    def __repr__(self) -> str:
        shown = (f"{name}={getattr(self, name)!r}" for name in self.__struct_fields__ if name not in self.redacted)
        return f"{type(self).__name__}({', '.join(shown)})"
