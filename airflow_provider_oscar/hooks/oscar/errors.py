# SPDX-License-Identifier: Apache-2.0
"""What an answer of OSCAR that is not a success means for the caller.

The status decides, but for 500: OSCAR sends it for what no repetition mends as well (``pkg/handlers/create.go``,
``pkg/utils/minio.go`` of 4.1.2), and there the text does.
"""

from __future__ import annotations

import re

import httpx

from airflow_provider_oscar.core.errors import (
    AccessError,
    DefinitionError,
    OscarProviderError,
    PermanentError,
    TransientError,
    quoted,
)
from airflow_provider_oscar.core.shapes import sentence
from airflow_provider_oscar.hooks.http.errors import error_class, is_page, redirect_target, retry_after

#: Texts of a 500 that is final, with the remedy.
_FINAL: tuple[tuple[re.Pattern[str], str], ...] = (
    (
        re.compile(r'the bucket "[^"]*" already exists'),
        "OSCAR makes the buckets of a service itself; choose another path, or delete that bucket if its objects are "
        "not needed",
    ),
    (
        re.compile(r"InvalidBucketName|bucket name"),
        "a bucket's name has 3 to 63 characters a-z, 0-9, '.' and '-'; correct the first part of the path",
    ),
    # 4.1.2 answers so to a list of a bucket's objects.
    (re.compile(r"NoSuchBucket"), "there is no such bucket; correct the name (`airflow oscar buckets list`)"),
    (re.compile(r"StorageProvider .* is not defined"), "define that provider under storage_providers"),
    (re.compile(r"MissingRegion"), "OSCAR makes that bucket too: give its provider a region under storage_providers"),
    (re.compile(r"is not the configured in OSCAR"), "use minio.default, which is OSCAR's own store, for inputs"),
    (
        re.compile(r"resourcequotas? .*not found|namespaces? .*not found"),
        "OSCAR knows a user from the first login with a token on; name one that has logged in, as OSCAR calls it",
    ),
    (re.compile(r"invalid (volumes|minio)\."), "correct the limit it names, such as '10Gi', or '5' for a number"),
    (
        re.compile(r"Missing bucket metadata"),
        "there is no such bucket; correct the name (`airflow oscar buckets list`)",
    ),
    (re.compile(r"quantities must match|unable to parse quantity"), "correct cpu or memory, such as '500m' or '1Gi'"),
    (
        re.compile(r"mountPath: Invalid value: .*must be unique"),
        "OSCAR mounts something of its own there (/data in services for virtual nodes); choose another mount_path",
    ),
    (re.compile(r'" is invalid:|is not a valid|is forbidden: .*maximum'), "correct what the text names"),
    (re.compile(r"initContainers.*[Rr]equired value"), "OSCAR's administrator has to set SUPERVISOR_KIT_IMAGE"),
    # 3.3.0 reads every body of a job as an event with records (``pkg/handlers/job.go``).
    (
        re.compile(r"invalid character .*looking for beginning of value"),
        "OSCAR 3.3.0 takes MinIO events alone for its jobs; send one (event_format='minio'), or upgrade OSCAR",
    ),
    (re.compile(r"image .*not allowed|not allowed .*image"), "use an image of a repository that this OSCAR allows"),
)


#: Texts of a 400, with the remedy; others say by themselves what is wrong.
_REFUSED: tuple[tuple[re.Pattern[str], str], ...] = (
    (
        re.compile(r"refresh_token secret is required"),
        "write the refresh token that reaches the other clusters into environment.secrets.refresh_token",
    ),
    (re.compile(r"already exists"), "use what is there, or choose another name"),
    (re.compile(r"InvalidBucketName"), "a bucket's name has 3 to 63 characters a-z, 0-9, '.' and '-'; correct it"),
    (re.compile(r"is not exposed"), "only a service with expose.api_port in its FDL can be started and stopped"),
)
#: What OSCAR says with a 503 for a part that it was installed without (``pkg/handlers/quotas.go``).
_SWITCHED_OFF = re.compile(r"is not enabled")
#: What OSCAR itself says with a 404: of buckets alone (``pkg/handlers/buckets``); all else it answers with nothing.
_NO_BUCKET = re.compile(r"[Bb]ucket '[^']*' (not found|does not exist)")


#: What a refused account needs, after the route.
ACCESS_REMEDY = (
    "the account of the connection has to be the owner or among the allowed_users, and a proxy before OSCAR has to let "
    "it through"
)


class NotOscarError(DefinitionError):
    """A route that every OSCAR has is not there: a proxy answered while OSCAR was replaced, or the host is another."""


class RouteAbsentError(DefinitionError):
    """This OSCAR does not have a route: it came with a later version, or is switched off."""


class BucketExistsError(DefinitionError):
    """A service cannot be made, since a bucket of its own is there already.

    :param bucket: its name.
    :param message: what the server said, and the remedy.
    """

    def __init__(self, message: str, bucket: str) -> None:
        super().__init__(message)
        self.bucket = bucket


def refusal(answer: httpx.Response, *, resource: str, display_name: str) -> OscarProviderError:
    """Return the error for an answer that is not a success, what it means first; total over all statuses.

    :param answer: of OSCAR, or of what stands before it.
    :param resource: what the request was about, such as ``service 'cowsay'``.
    :param display_name: words that name the connection.
    """
    status = answer.status_code
    body = (
        f": {quoted(sentence(answer.text))}"
        if answer.text.strip() and not is_page(answer.headers, answer.content)
        else ""
    )
    seen = f"{display_name}: OSCAR answered {status}{body}"
    if status == 401:
        return AccessError(f"not authorised for {resource}; check user, password or token of the connection ({seen})")
    if status == 403:
        return AccessError(f"{resource} is forbidden; {_route(answer)}{ACCESS_REMEDY} ({seen})")
    if status == 404 and answer.text.strip() and not _NO_BUCKET.search(answer.text):
        return NotOscarError(
            f"there is no such route for {resource}; check that the host of the connection is OSCAR ({seen})"
        )
    if status in (404, 405):
        remedy = (
            "correct the name (`airflow oscar buckets list`)" if body else "check its name, and that the host is OSCAR"
        )
        return DefinitionError(f"{resource} is not there; {remedy} ({seen})")
    if status in (408, 423, 425, 429):
        return TransientError(
            f"OSCAR asks to come back later for {resource} ({seen})", delay=retry_after(answer.headers)
        )
    if status in (400, 406, 415, 422):
        remedy = next((remedy for pattern, remedy in _REFUSED if pattern.search(answer.text)), "correct the definition")
        return DefinitionError(f"OSCAR does not accept {resource}: {remedy} ({seen})")
    if 300 <= status < 400:
        message = (
            f"{resource} is redirected to {redirect_target(answer.headers)}; put OSCAR's own address into the "
            f"connection's host ({seen})"
        )
        return TransientError(message) if error_class(status) is TransientError else DefinitionError(message)
    if status in (501, 505) or 400 <= status < 500:
        return PermanentError(f"OSCAR refuses {resource} ({seen})")
    return _final(answer, resource, seen) or TransientError(
        f"OSCAR failed at {resource} ({seen})", delay=retry_after(answer.headers)
    )


def _route(answer: httpx.Response) -> str:
    """What was asked for, as the remedy has to name it; nothing of an answer that has no request."""
    try:
        request = answer.request
    except RuntimeError:
        return ""
    return f"for {request.method} {quoted(request.url.path)} "


def is_final(answer: httpx.Response) -> bool:
    """Whether a 500 says what no repetition mends."""
    return any(pattern.search(answer.text) for pattern, _ in _FINAL) or "already exists" in answer.text


def _final(answer: httpx.Response, resource: str, seen: str) -> DefinitionError | None:
    text = answer.text
    if answer.status_code == 503 and _SWITCHED_OFF.search(text):
        return RouteAbsentError(f"{resource} cannot be had: this OSCAR's administrator has switched that off ({seen})")
    for pattern, remedy in _FINAL:
        if not pattern.search(text):
            continue
        message = f"OSCAR does not accept {resource}: {remedy} ({seen})"
        bucket = re.search(r'the bucket "([^"]*)" already exists', text)
        return BucketExistsError(message, bucket[1]) if bucket else DefinitionError(message)
    return None
