# SPDX-License-Identifier: Apache-2.0
"""What a dCache is asked, below a directory of its own; answers are made comparable by :mod:`.dcache_answers`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from oscar_testbed.contract import dcache_door, dcache_frontend, dcache_odd
from oscar_testbed.contract.dcache_talk import Talk, Transcript

#: The cases in their order.
CASES: Mapping[str, Callable[[Talk], None]] = {
    "files": dcache_door.files,
    "reads": dcache_door.reads,
    "pools": dcache_door.pools,
    "properties": dcache_door.properties,
    "moves": dcache_door.moves,
    "macaroons": dcache_door.macaroons,
    "macaroon for a file": dcache_door.download,
    "macaroon for a directory": dcache_door.upload,
    "namespace": dcache_frontend.namespace,
    "actions": dcache_frontend.actions,
    "event channels": dcache_frontend.channels,
    "subscriptions": dcache_frontend.subscriptions,
    "staging": dcache_frontend.staging,
    "bulk requests": dcache_frontend.bulk,
    "conditions": dcache_odd.conditions,
    "parts of files": dcache_odd.ranges,
    "seldom verbs": dcache_odd.verbs,
    "attributes": dcache_odd.attributes,
    "more bulk requests": dcache_odd.more_bulk,
}


def transcripts(talk: Talk) -> dict[str, Transcript]:
    """Ask all cases and return the answers; what was made is removed."""
    found: dict[str, Transcript] = {}
    for name, ask in CASES.items():
        talk.notes = {}
        ask(talk)
        found[name] = talk.notes
    talk.client.delete(talk.at("/"), headers={"Authorization": talk.login})
    return found
