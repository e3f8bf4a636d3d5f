# SPDX-License-Identifier: Apache-2.0
"""What the browser tests share: the demo's files, waiting, and opening the provider's page."""

from __future__ import annotations

import itertools
import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PATIENCE = 45_000
PICTURES = ROOT / "demo-report" / "page"
VISITS = itertools.count()


def wait_until(condition: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not so within {seconds:g} seconds"
        time.sleep(0.5)


def connections() -> dict[str, Any]:
    return json.loads((ROOT / ".demo" / "up" / "connections.json").read_text())


def opened(page: Any, view: str, theme: str = "light") -> None:
    page.evaluate(f"localStorage.setItem('theme', '{theme}')")
    # Another address each time: to the same one the browser would not go again.
    page.goto(f"/oscar/ui/?visit={next(VISITS)}#{view}")
    from playwright.sync_api import expect

    expect(page.get_by_role("tab", selected=True)).to_have_text(re.compile(view, re.IGNORECASE))
    expect(page.locator("#live-text")).to_have_text("Live", timeout=PATIENCE)


def axe_faults(page: Any, axe: str) -> list[tuple[str, list[str]]]:
    """Return what axe finds serious or critical in the page as it is, with the first parts that have it."""
    if not page.evaluate("typeof axe === 'object'"):
        page.evaluate(axe)
    found = page.evaluate("axe.run()")
    return [
        (each["id"], [node["html"][:150] for node in each["nodes"][:5]])
        for each in found["violations"]
        if each["impact"] in ("serious", "critical")
    ]
