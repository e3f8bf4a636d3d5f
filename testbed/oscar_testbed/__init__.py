# SPDX-License-Identifier: Apache-2.0
"""The embedded platform: S3, dCache, OSCAR, Kubernetes with interLink and SLURM as plain processes.

For trying the provider and for test suites (``with LocalPlatform() as platform:``), never for
production. A distribution of its own, ``oscar-testbed``; the provider never imports it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from oscar_testbed.faults import Faults as Faults
    from oscar_testbed.images import LocalImage as LocalImage
    from oscar_testbed.platform import LocalPlatform as LocalPlatform

__version__ = "0.1.0"

_HOMES = {"Faults": "faults", "LocalImage": "images", "LocalPlatform": "platform"}

__all__ = ["Faults", "LocalImage", "LocalPlatform"]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that one component does not load all of them."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
