# SPDX-License-Identifier: Apache-2.0
"""An :class:`ObjectEvent` as the two notifications that OSCAR and its supervisor read, and JSON as it gets there.

A job's container has the body of its request in a variable and runs ``echo $EVENT | supervisor`` (OSCAR 4.1.2,
``pkg/handlers/job.go``). Kubernetes puts variables in for ``$(NAME)``, the shell takes ``*`` for files and several
blanks for one, and the ``echo`` of dash takes ``\\n`` for a new line.
"""

from __future__ import annotations

import json
import re
import string
from typing import Any
from urllib.parse import quote_plus

from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.core.objects import ObjectEvent, Reason, utf8

#: A text in JSON.
_TEXT = re.compile(r'"(?:[^"\\]|\\.)*"')
#: What stays as it is on the way to the supervisor.
_PLAIN = frozenset(string.ascii_letters + string.digits + "!#%&'()+,-./:;<=>@^_{|}~")


def shell_json(value: object, display_name: str) -> bytes:
    """Return JSON that arrives as it was sent: what a shell or Kubernetes would change is written as ``\\u0020``.

    :param value: what is sent.
    :param display_name: words that name it.
    :raises DefinitionError: if JSON cannot say it.
    """
    try:
        text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise DefinitionError(f"{display_name} cannot be sent as JSON: {error}") from error
    return _TEXT.sub(lambda found: f'"{"".join(map(_escaped, json.loads(found[0])))}"', text).encode()


def _escaped(character: str) -> str:
    if character in _PLAIN:
        return character
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))


def to_minio_event(
    event: ObjectEvent, *, principal_id: str = "airflow", source_ip: str = "127.0.0.1"
) -> dict[str, Any]:
    """Return the event as MinIO's webhook would word it, with all fields OSCAR and its supervisor insist on.

    :param event: the object; its provider on the OSCAR side is ``minio.default``.
    :param principal_id: who is to own the job; an OIDC user must give their own subject to see it in their list.
    :param source_ip: address shown in OSCAR's access log.
    """
    time = event.modified.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    item: dict[str, Any] = {"key": quote_plus(utf8(event.key)), "eTag": event.etag, "sequencer": event.id[:16].upper()}
    if event.size is not None:
        item["size"] = event.size
    if event.version_id:
        item["versionId"] = event.version_id
    record = {
        "eventVersion": "2.0",
        "eventSource": "minio:s3",
        "awsRegion": "",
        "eventTime": time,
        "eventName": "s3:ObjectCreated:Put",
        "userIdentity": {"principalId": principal_id},
        "requestParameters": {"principalId": principal_id, "sourceIPAddress": source_ip},
        "s3": {
            "s3SchemaVersion": "1.0",
            "configurationId": "Config",
            "bucket": {
                "name": event.container,
                "ownerIdentity": {"principalId": principal_id},
                "arn": f"arn:aws:s3:::{event.container}",
            },
            "object": item,
        },
    }
    return {"EventName": "s3:ObjectCreated:Put", "Key": f"{event.container}/{event.key}", "Records": [record]}


def to_dcache_event(event: ObjectEvent, *, subscription: str = "") -> dict[str, object]:
    """Return the event as dCache's stream would word it.

    OSCAR's supervisor looks for the name below the path of the service's ``webdav.dcache`` input.

    :param event: the object.
    :param subscription: URL of the subscription; the supervisor wants the field and ignores its text.
    """
    mask = "IN_MOVED_TO" if event.reason is Reason.MOVED else "IN_CLOSE_WRITE"
    return {"event": {"name": event.key, "mask": [mask]}, "subscription": subscription or event.container}
