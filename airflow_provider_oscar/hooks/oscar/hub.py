# SPDX-License-Identifier: Apache-2.0
"""OSCAR Hub: services that others curate, each a folder with an FDL, its scripts and RO-Crate metadata.

The Hub is a repository read through GitHub's contents API (``GET /repos/{owner}/{repo}/contents/{path}``; a folder is a
JSON array of ``name`` and ``type``, a file is sent as it is for ``Accept: application/vnd.github.raw``), and any server
that answers so will do. Metadata: RO-Crate 1.2, ``ro-crate-metadata.json``. What the Hub says is other people's: no
address in an answer is followed, names are checked before they become a path, and every answer is bounded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Self, TypeVar
from urllib.parse import quote, urlsplit

import httpx

from airflow_provider_oscar.core.errors import DefinitionError, PermanentError, TransientError, quoted
from airflow_provider_oscar.core.logs import sanitize_line
from airflow_provider_oscar.core.shapes import parse_json, sentence
from airflow_provider_oscar.hooks.http import flows
from airflow_provider_oscar.hooks.http.cookies import cookie_jar
from airflow_provider_oscar.hooks.http.flows import Flow
from airflow_provider_oscar.hooks.http.pace import paced

#: The curated services of OSCAR's makers.
HUB_URL = "https://api.github.com/repos/grycap/oscar-hub/contents/crates?ref=main"
METADATA = "ro-crate-metadata.json"
#: Bytes of one file: metadata, FDL or script.
FILE_LIMIT = 2 * 1024 * 1024
#: Entries of the Hub that are looked at.
MOST_CRATES = 200
_FDL_NAMES = ("fdl.yml", "fdl.yaml")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_TEXT_LIMIT = 500
_TIMEOUT = 15.0

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Crate:
    """What the metadata of one service says; texts are fit for a terminal.

    :param slug: name of its folder.
    :param title: for people.
    :param description: one paragraph.
    :param version: of the service.
    :param kind: ``synchronous``, ``asynchronous`` or ``exposed``, as its author calls it.
    :param license: URL or name.
    :param memory: that it needs, in words.
    :param processors: the same.
    :param fdl: name of the file with the service, in the folder.
    :param files: names of all files in the metadata.
    """

    slug: str
    title: str
    description: str = ""
    version: str = ""
    kind: str = ""
    license: str = ""
    memory: str = ""
    processors: str = ""
    fdl: str = _FDL_NAMES[0]
    files: tuple[str, ...] = ()

    @classmethod
    def from_metadata(cls, slug: str, metadata: bytes) -> Self:
        """Read ``ro-crate-metadata.json``.

        :raises DefinitionError: if it is not an RO-Crate.
        """
        try:
            document = parse_json(metadata)
        except (ValueError, RecursionError) as error:
            raise DefinitionError(f"the metadata of {slug!r} in the Hub are not JSON") from error
        graph = document.get("@graph") if isinstance(document, Mapping) else None
        entities = [each for each in graph if isinstance(each, Mapping)] if isinstance(graph, list) else []
        root = next((each for each in entities if each.get("@id") == "./"), None)
        if root is None:
            raise DefinitionError(f"the metadata of {slug!r} in the Hub is not an RO-Crate: the root './' is not there")
        parts = root.get("hasPart")
        files = tuple(name for name in map(_text, parts if isinstance(parts, list) else ()) if _is_path(name))
        return cls(
            slug=slug,
            title=_text(root.get("name")) or slug,
            description=_text(root.get("description")),
            version=_text(root.get("version")),
            kind=_text(root.get("serviceType")),
            license=_text(root.get("license")),
            memory=_text(root.get("memoryRequirements")),
            processors=_text(root.get("processorRequirements")),
            fdl=next((name for name in files if name in _FDL_NAMES), _FDL_NAMES[0]),
            files=files,
        )


@dataclass(frozen=True, slots=True)
class Hub:
    """One Hub.

    :param url: of the folder of all services, with GitHub's contents API; a ``?ref=`` chooses branch or tag.
    :raises DefinitionError: if it is not an http(s) URL.
    """

    url: str = HUB_URL

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.url)
            usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.username is None
        except ValueError:
            usable = False
        if not usable:
            raise DefinitionError(f"the URL of the Hub is {quoted(self.url)}; expected {HUB_URL} or one like it")

    def crates(self) -> Iterator[Crate | str]:
        """Read the metadata of every service; yields a sentence for one that cannot be read."""
        with self._client() as client:
            for slug in self._run(client, self._folder(), "the list of services"):
                try:
                    metadata = self._run(client, self._file(slug, METADATA), f"the metadata of {slug!r}")
                    if metadata is not None:
                        yield Crate.from_metadata(slug, metadata)
                except DefinitionError as error:
                    yield str(error)

    def crate(self, slug: str) -> Crate:
        """Read the metadata of one service.

        :raises DefinitionError: if there is none of the name.
        """
        with self._client() as client:
            metadata = self._run(client, self._file(_checked(slug), METADATA), f"the metadata of {slug!r}")
        if metadata is None:
            raise DefinitionError(f"the Hub has no service {slug!r}; `airflow oscar hub list` shows what it has")
        return Crate.from_metadata(slug, metadata)

    def read(self, slug: str, path: str) -> str:
        """Return the text of a file of a service.

        :param slug: name of the service's folder.
        :param path: below it.
        :raises DefinitionError: if it is not there, is not text, or leads out of the folder.
        """
        if not _is_path(path):
            raise DefinitionError(f"{slug!r} of the Hub names the file {quoted(path)}, which leads out of its folder")
        with self._client() as client:
            data = self._run(client, self._file(_checked(slug), path), f"file {path!r} of {slug!r}")
        if data is None:
            raise DefinitionError(f"{slug!r} of the Hub has no file {quoted(path)}")
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise DefinitionError(f"file {quoted(path)} of {slug!r} in the Hub is not text") from error

    def _client(self) -> httpx.Client:
        # Without credentials, and blind to redirects: where an answer leads is not ours to follow.
        headers = {"User-Agent": "airflow-provider-oscar"}
        return paced(httpx.Client(timeout=_TIMEOUT, follow_redirects=False, headers=headers, cookies=cookie_jar()))

    def _run(self, client: httpx.Client, flow: Flow[_T], resource: str) -> _T:
        try:
            return flows.run(client, flow, display_name=f"OSCAR Hub ({self._repository})", limit=FILE_LIMIT)
        except TransientError as error:
            raise DefinitionError(
                f"{resource} cannot be read: {error}. This command needs the network; where there is none, give --url "
                "of a mirror, or clone the Hub elsewhere and take `airflow oscar services apply crates/NAME/fdl.yml`"
            ) from error
        except PermanentError as error:
            raise DefinitionError(f"{resource} in the Hub is too large: {error}") from error

    @property
    def _repository(self) -> str:
        return urlsplit(self.url)._replace(query="", fragment="").geturl()

    def _request(self, path: str, accept: str) -> httpx.Request:
        parts = urlsplit(self.url)
        below = "/".join(quote(each, safe="") for each in path.split("/") if each)
        url = parts._replace(path=f"{parts.path.rstrip('/')}/{below}".rstrip("/"), fragment="").geturl()
        return httpx.Request("GET", url, headers={"Accept": accept})

    def _folder(self) -> Flow[list[str]]:
        answer = yield self._request("", "application/vnd.github+json")
        self._check(answer)
        try:
            entries = parse_json(answer.content)
        except ValueError:
            entries = None
        if not isinstance(entries, list):
            raise DefinitionError(
                f"{self._repository} is not a folder of a repository: it answers {quoted(sentence(answer.text))}; "
                f"the URL of a Hub looks like {HUB_URL}"
            )
        folders = [each for each in entries if isinstance(each, Mapping) and each.get("type") == "dir"]
        names = [name for name in (str(each.get("name")) for each in folders) if _NAME.fullmatch(name)]
        return sorted(names)[:MOST_CRATES]

    def _file(self, slug: str, path: str) -> Flow[bytes | None]:
        answer = yield self._request(f"{slug}/{path}", "application/vnd.github.raw")
        if answer.status_code == 404:
            return None
        self._check(answer)
        return answer.content

    def _check(self, answer: httpx.Response) -> None:
        if answer.is_success:
            return
        if answer.status_code in (403, 429) and answer.headers.get("x-ratelimit-remaining") == "0":
            raise DefinitionError(
                f"{self._repository} answers no more for now: GitHub allows 60 requests an hour from one address "
                "without an account; try again later, or give --url of a mirror"
            )
        if answer.is_redirect:
            raise DefinitionError(
                f"{self._repository} redirects to {quoted(answer.headers.get('location', ''))}, which is not followed; "
                "give --url if the Hub has moved"
            )
        raise DefinitionError(
            f"{self._repository} answers {answer.status_code} ({quoted(sentence(answer.text))}); check --url"
        )


def _checked(slug: str) -> str:
    if not _NAME.fullmatch(slug):
        raise DefinitionError(
            f"{quoted(slug)} is not the name of a service in the Hub; `airflow oscar hub list` shows them"
        )
    return slug


def _is_path(path: str) -> bool:
    """Whether a path stays below its folder."""
    return bool(path) and all(_NAME.fullmatch(part) for part in path.split("/"))


def _text(value: object) -> str:
    """Return a value of JSON-LD as one line: a text, the id of a node, or a list of them."""
    if isinstance(value, Mapping):
        value = value.get("@id") or value.get("name") or ""
    if isinstance(value, list):
        return ", ".join(filter(None, map(_text, value)))[:_TEXT_LIMIT]
    return sanitize_line(" ".join(str(value if value is not None else "").split()))[:_TEXT_LIMIT]
