# SPDX-License-Identifier: Apache-2.0
"""What Rucio says to those who listen: ``{"event_type": …, "payload": {…}, "created_at": …}``; pure.

Source: Rucio 41, ``daemons/hermes/hermes.py`` (the envelope), ``core/request.py`` (transfers), ``core/did.py``
(``CREATE_DTS``, ``CLOSE``, ``OPEN``, ``REGISTER_CNT``) and ``core/rule.py`` (``RULE_OK``, ``DATASETLOCK_OK``,
``RULE_PROGRESS``). Hermes writes the type in small letters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from airflow_provider_oscar.core.errors import DefinitionError, quoted
from airflow_provider_oscar.core.shapes import parse_json

#: Types of messages after which a dataset has what it did not have before, or may have.
_TELLING = frozenset({
    "transfer-done", "stagein-done", "create_dts", "create_cnt", "register_cnt", "close", "open", "rule_ok",
    "rule_progress", "datasetlock_ok",
})  # fmt: skip
#: Where a payload names a dataset, a container or a file: fields of scope and name.
_DIDS = (("scope", "name"), ("datasetScope", "dataset"))


@dataclass(frozen=True, slots=True)
class RucioMessage:
    """One message.

    :param event_type: such as ``transfer-done`` or ``close``.
    :param payload: depends on the type.
    """

    event_type: str
    payload: Mapping[str, object]

    def concerns(self, scope: str, name: str) -> bool:
        """Whether the listing of a dataset or container may show more since.

        :param scope: of it.
        :param name: of it.
        """
        dids = ((self.payload.get(first), self.payload.get(second)) for first, second in _DIDS)
        return self.event_type in _TELLING and (scope, name) in dids


def read_message(body: bytes) -> RucioMessage:
    """Read what Hermes sent.

    :raises DefinitionError: if it is none of Rucio's messages.
    """
    try:
        found = parse_json(body)
    except ValueError:
        found = None
    payload = found.get("payload") if isinstance(found, dict) else None
    if not isinstance(found, dict) or not isinstance(found.get("event_type"), str) or not isinstance(payload, dict):
        raise DefinitionError(
            f"not a message of Rucio: {quoted(body[:200])}; expected JSON with event_type and payload"
        )
    return RucioMessage(found["event_type"].lower(), payload)
