# SPDX-License-Identifier: Apache-2.0
"""How a job gets at files of dCache: URLs, and headers with a macaroon for one path alone."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from airflow_provider_oscar.core.errors import BadInputError, DefinitionError, quoted
from airflow_provider_oscar.core.objects import ObjectEvent, StoreType, normalised_etag, split_uri
from airflow_provider_oscar.core.oscar_events import to_dcache_event
from airflow_provider_oscar.core.staging import STRONGEST_FIRST, Checksum, StageIn, StageOutWebDAV, safe_name
from airflow_provider_oscar.hooks.dcache import webdav
from airflow_provider_oscar.hooks.dcache.auth import credentials
from airflow_provider_oscar.hooks.dcache.entries import clean_path, join
from airflow_provider_oscar.hooks.dcache.propfind import parse_checksums
from airflow_provider_oscar.hooks.dcache.settings import AuthMode
from airflow_provider_oscar.hooks.dcache.webdav import MacaroonsUnsupported

if TYPE_CHECKING:
    from airflow_provider_oscar.hooks.dcache.hook import DCacheHook


def stage_in(hook: DCacheHook, event: ObjectEvent, *, lifetime: timedelta) -> StageIn:
    """Do :meth:`.DCacheHook.stage_in`."""
    if event.source is not StoreType.DCACHE:
        raise DefinitionError(f"{event.uri!r} is not a dCache file; use the hook of its store")
    path = join(event.container, event.key)
    etag, checksum = _require_unchanged(hook, event, path)
    headers = hook.capability(path, activities=("DOWNLOAD", "READ_METADATA"), lifetime=lifetime)
    return StageIn(
        uri=event.uri,
        name=safe_name(event.key),
        size=event.size,
        etag=etag,
        checksum=checksum,
        url=hook.door.url(path),
        headers=headers,
        event=to_dcache_event(event),
    )


def stage_out(
    hook: DCacheHook, uri: str, *, submission_id: str, lifetime: timedelta, max_bytes: int | None = None
) -> StageOutWebDAV:
    """Do :meth:`.DCacheHook.stage_out`."""
    path = join(dcache_path(uri), submission_id)
    hook.make_directory(path)
    activities = ("UPLOAD", "DELETE", "LIST", "READ_METADATA")
    headers = hook.capability(path, activities=activities, lifetime=lifetime, max_upload=max_bytes)
    return StageOutWebDAV(
        uri=f"dcache://{split_uri(uri)[1]}{hook.door.url(path, directory=True)[len(hook.settings.webdav_url) :]}",
        url=hook.door.url(path, directory=True),
        headers=headers,
    )


def access_headers(
    hook: DCacheHook, path: str, *, activities: tuple[str, ...], lifetime: timedelta, max_upload: int | None
) -> dict[str, str]:
    """Do :meth:`.DCacheHook.capability`."""
    settings = hook.settings
    if settings.auth is AuthMode.NONE:
        return {}
    cause = MacaroonsUnsupported("see above")
    if hook.macaroons:
        try:
            flow = webdav.mint_macaroon(
                hook.door, path, activities=activities, lifetime=lifetime, max_upload=max_upload
            )
            return {"Authorization": f"Bearer {hook.run(flow)}"}
        except MacaroonsUnsupported as error:
            hook.macaroons, cause = False, error
    header = credentials(settings)()
    if settings.allow_credential_forwarding and header:
        return {"Authorization": header}
    raise DefinitionError(
        f"{settings.display_name}: the server issues no macaroons, so that a job could reach {quoted(path)} only with "
        "the connection's own credentials, which are not handed out. Use a dCache door with TLS that issues macaroons, "
        "stage through S3, or set the extra 'allow_credential_forwarding' to true if the jobs may see them"
    ) from cause


def dcache_path(uri: str) -> str:
    """Return the path of a ``dcache://`` URI.

    :raises DefinitionError: if it is another URI.
    """
    source, _authority, path = split_uri(uri)
    if source is not StoreType.DCACHE:
        raise DefinitionError(f"{uri!r} is not a dCache URI; expected dcache://conn_id/path")
    return clean_path(path or "/")


def _require_unchanged(hook: DCacheHook, event: ObjectEvent, path: str) -> tuple[str, Checksum | None]:
    """Return the entity tag of the door and a checksum, if the file is still the one of the event."""
    now = hook.stat(path)
    prefix = f"{hook.display_name}: {quoted(event.uri)}"
    if now is None or now.is_directory:
        raise BadInputError(f"{prefix} is gone; it was deleted or moved")
    resized = event.size is not None and now.size is not None and event.size != now.size
    if resized or not _same_version(event.etag, now.etag):
        raise BadInputError(f"{prefix} was overwritten; the newer version has an event of its own")
    checksums = now.checksums
    etag = now.etag
    if now.pnfsid:
        # An entry's tag is the PNFS-ID; downloads are compared with the door's own tag.
        answer = hook.run(webdav.head(hook.door, path))
        if answer is None:
            raise BadInputError(f"{prefix} is not at the door; it was deleted or moved, or the door shows less")
        etag = normalised_etag(answer.headers.get("etag", ""))
        checksums += parse_checksums(answer.headers.get("digest", ""))
    return etag, _checksum(checksums)


def _same_version(before: str, now: str) -> bool:
    """Compare entity tags; the frontend's is the PNFS-ID, with which the door's tag begins."""
    return not before or not now or before.startswith(now) or now.startswith(before)


def _checksum(found: tuple[tuple[str, str], ...]) -> Checksum | None:
    by_type = dict(found)
    for kind in STRONGEST_FIRST:
        if value := by_type.get(kind):
            return Checksum(kind, value)
    return None
