# SPDX-License-Identifier: Apache-2.0
"""A proxy that grants what a file of rights grants and no more, in the words of Kubernetes and S3.

The embedded servers have one account that may do everything. In front of them this decides as the real ones do: by the
rules of a Role, or the statements of a bucket policy; and says no more of it than they do. Requests pass unchanged, so
that signatures stay valid.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatchcase
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import unescape

import httpx

_HOP = {"connection", "transfer-encoding", "content-length", "keep-alive"}
_RESOURCE = re.compile(
    r"/api/v1(?:/namespaces/(?P<namespace>[^/]+))?/(?P<resource>pods|secrets|nodes|events)(?P<rest>/.*)?$"
)
_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


class Guard:
    """Decides over requests.

    :param granted: what is granted; taken away in a test.
    """

    def __init__(self, granted: Iterable[tuple[str, str]]) -> None:
        self.granted = set(granted)
        #: As it was before a test took something away.
        self.known = set(self.granted)
        #: What was asked for.
        self.asked: set[tuple[str, str]] = set()

    def needed(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> list[tuple[str, str]]:
        """Return the rights a request needs, each as an action and what it is on."""
        raise NotImplementedError

    def may(self, right: tuple[str, str]) -> bool:
        """Whether it is granted."""
        return right in self.granted

    def answer(self, path: str, body: bytes) -> tuple[int, bytes] | None:
        """Return status and JSON of what the guard answers itself, since it knows the rights; None for all else."""
        return None

    def done(self, method: str, path: str, status: int) -> None:
        """Note how a request that was passed on was answered."""

    def refused_later(self, method: str, path: str, status: int) -> tuple[str, str] | None:
        """Return the right for want of which the server hides its answer; None if it does not."""
        return None

    def fault(self, method: str, path: str) -> bytes | None:
        """Return the body of an answer 400, which a test wants; None to pass the request on."""
        return None

    def refusal(self, right: tuple[str, str], method: str, path: str, body: bytes) -> tuple[int, str, bytes]:
        """Return status, content type and body of the answer to a request that lacks a right."""
        raise NotImplementedError


class KubernetesGuard(Guard):
    """By the rules of a Role: pairs of verb and resource."""

    @classmethod
    def of_role(cls, role: Mapping[str, Any]) -> KubernetesGuard:
        """Grant what a Role grants."""
        return cls(
            (verb, resource) for rule in role["rules"] for resource in rule["resources"] for verb in rule["verbs"]
        )

    def needed(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> list[tuple[str, str]]:
        if path.endswith("/selfsubjectaccessreviews"):
            return []
        found = _RESOURCE.fullmatch(urlsplit(path).path)
        if found is None:
            return [(method, path)]
        name, _, part = (found["rest"] or "").strip("/").partition("/")
        resource = f"{found['resource']}/{part}" if part else found["resource"]
        verb = _VERBS.get(method, "get" if name else "list")
        if method == "GET" and "watch=" in path:
            verb = "watch"
        return [("deletecollection" if verb == "delete" and not name else verb, resource)]

    def answer(self, path: str, body: bytes) -> tuple[int, bytes] | None:
        if not path.endswith("/selfsubjectaccessreviews"):
            return None
        review = json.loads(body)
        asked = review["spec"]["resourceAttributes"]
        resource = "/".join(filter(None, (asked["resource"], asked.get("subresource"))))
        return 201, json.dumps({**review, "status": {"allowed": self.may((asked["verb"], resource))}}).encode()

    def refusal(self, right: tuple[str, str], method: str, path: str, body: bytes) -> tuple[int, str, bytes]:
        verb, resource = right
        user = "system:serviceaccount:team-a:airflow-oscar"
        what = f'cannot {verb} resource "{resource}" in API group ""'
        message = f'{resource} is forbidden: User "{user}" {what} in the namespace "default"'
        status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Forbidden", "code": 403}
        return 403, "application/json", json.dumps({**status, "message": message}).encode()


class S3Guard(Guard):
    """By the statements of a bucket policy: pairs of action and resource pattern, ``s3:prefix`` as a condition."""

    @classmethod
    def of_policy(cls, policy: Mapping[str, Any]) -> S3Guard:
        """Grant what a policy grants."""
        guard = cls(())
        for statement in policy["Statement"]:
            assert statement["Effect"] == "Allow"
            assert "Condition" not in statement
            resources = statement["Resource"]
            for action in statement["Action"]:
                for resource in [resources] if isinstance(resources, str) else resources:
                    guard.granted.add((action, resource.removeprefix("arn:aws:s3:::")))
        guard.known = set(guard.granted)
        return guard

    #: Query word of requests that are answered 400, as stores do to a part that is too small.
    broken = ""

    def needed(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> list[tuple[str, str]]:
        parts = urlsplit(path)
        query = parse_qs(parts.query, keep_blank_values=True)
        bucket, _, key = unquote(parts.path).lstrip("/").partition("/")
        if not key and method == "POST" and "delete" in query:
            keys = re.findall(r"<Key>([^<]*)</Key>", body.decode())
            return [("s3:DeleteObject", f"{bucket}/{unescape(each)}") for each in keys]
        if not key and method == "POST":
            # A form, as a presigned POST is; its key comes before the file.
            named = re.search(rb'name="key"\r\n(?:[^\r\n]+\r\n)*\r\n([^\r\n]*)', body)
            key = named[1].decode() if named else ""
            return [("s3:PutObject", f"{bucket}/{key}")]
        if not bucket:
            return [("s3:ListAllMyBuckets", "*")]
        if not key and "notification" in query:
            return [("s3:GetBucketNotification", bucket)]
        if not key:
            return [("s3:ListBucketVersions" if "versions" in query else "s3:ListBucket", bucket)]
        of_key = f"{bucket}/{key}"
        if method == "DELETE":
            return [("s3:AbortMultipartUpload" if "uploadId" in query else "s3:DeleteObject", of_key)]
        if method in ("PUT", "POST"):
            source = unquote(headers.get("x-amz-copy-source", "")).lstrip("/").partition("?")[0]
            return [("s3:PutObject", of_key), *([("s3:GetObject", source)] if source else [])]
        return [("s3:GetObjectVersion" if "versionId" in query else "s3:GetObject", of_key)]

    def may(self, right: tuple[str, str]) -> bool:
        action, wanted = right
        return any(granted == action and fnmatchcase(wanted, pattern) for granted, pattern in self.granted)

    def refused_later(self, method: str, path: str, status: int) -> tuple[str, str] | None:
        """As Amazon and Ceph do: what is not there is 403 to whoever may not list the bucket."""
        bucket, _, key = unquote(urlsplit(path).path).lstrip("/").partition("/")
        right = ("s3:ListBucket", bucket)
        if status != 404 or not key or method not in ("GET", "HEAD"):
            return None
        self.asked.add(right)
        return None if self.may(right) else right

    def fault(self, method: str, path: str) -> bytes | None:
        if not self.broken or self.broken not in parse_qs(urlsplit(path).query) or method != "POST":
            return None
        return b"<Error><Code>InvalidPart</Code><Message>One of the parts could not be found.</Message></Error>"

    def refusal(self, right: tuple[str, str], method: str, path: str, body: bytes) -> tuple[int, str, bytes]:
        if method == "POST" and "delete" in parse_qs(urlsplit(path).query, keep_blank_values=True):
            # Refused key by key, in an answer that says 200.
            refused = "".join(
                f"<Error><Key>{each}</Key><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
                for each in re.findall(r"<Key>([^<]*)</Key>", body.decode())
            )
            return 200, "application/xml", f"<DeleteResult>{refused}</DeleteResult>".encode()
        text = "<Error><Code>AccessDenied</Code><Message>Access Denied.</Message><Resource>/</Resource></Error>"
        return 403, "application/xml", f'<?xml version="1.0" encoding="UTF-8"?>\n{text}'.encode()


class DCacheGuard(Guard):
    """By access control lists, in the form of dCache's ``setfacl``: pairs of a letter and what it is on.

    A door looks at what is named before it does anything with it, so each request needs ``t`` as well.
    A scope is the directory itself (``/results``), or the directories (``/results/*/``) or files (``/results/*``) that
    come below it and inherit.
    """

    @classmethod
    def of_acl(cls, text: str) -> DCacheGuard:
        """Grant what commands of the admin interface grant."""
        guard = cls(())
        for line in text.splitlines():
            words = line.split("#")[0].split()
            if not words:
                continue
            assert words[0] == "setfacl"
            for entry in words[2:]:
                kind, _, access, *flags = entry.split(":")
                assert kind == "USER"
                assert access[0] == "+"
                inherited = "".join(flags)
                scopes = [] if "o" in inherited else [words[1]]
                scopes += [f"{words[1]}/*/"] if "d" in inherited else []
                scopes += [f"{words[1]}/*"] if "f" in inherited else []
                guard.granted |= {(letter, scope) for letter in access[1:] for scope in scopes}
            guard.roots.append(words[1])
        guard.known = set(guard.granted)
        return guard

    def __init__(self, granted: Iterable[tuple[str, str]]) -> None:
        super().__init__(granted)
        self.roots: list[str] = []
        #: Paths of files and directories that were made by way of this.
        self.written: set[str] = set()
        self.made: set[str] = set()

    def needed(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> list[tuple[str, str]]:
        parts = urlsplit(path)
        name = unquote(parts.path)
        if name.startswith("/api/v1/"):
            if not name.startswith("/api/v1/namespace/"):
                return []  # of one's own channels and requests
            name = "/" + name.removeprefix("/api/v1/namespace/").lstrip("/")
            listing = "children=true" in parts.query
            if listing:
                return [*self._entered(name), ("t", self._scope(name, True)), ("l", self._scope(name, True))]
            return [*self._entered(name), ("t", self._of_any(name))]
        parent = name.rstrip("/").rpartition("/")[0] or "/"
        match method:
            case "GET":
                rights = [("t", self._scope(name, False)), ("r", self._scope(name, False))]
            case "PROPFIND" if headers.get("depth", "0") != "0":
                rights = [("t", self._scope(name, True)), ("l", self._scope(name, True))]
            case "HEAD" | "PROPFIND":
                rights = [("t", self._of_any(name))]
            case "PUT":
                rights = self._to_write(name, parent)
            case "MKCOL":
                # One that is there is said to be there, whatever the right.
                there = name.rstrip("/") in self.made | set(self.roots)
                rights = [] if there else [("t", self._scope(parent, True)), ("s", self._scope(parent, True))]
            case "DELETE":
                rights = [("D", self._scope(parent, True)), ("d", self._of_any(name))]
            case _:
                return []  # a macaroon has no more rights than its owner
        return self._entered(name) + rights

    def _to_write(self, name: str, parent: str) -> list[tuple[str, str]]:
        rights = [("t", self._scope(parent, True)), ("f", self._scope(parent, True))]
        if parent not in self.made | set(self.roots):  # the door makes the directories on the way
            rights.append(("s", self._scope(parent.rpartition("/")[0], True)))
        if name in self.written:  # dCache replaces a file by deleting it first
            rights += [("t", self._scope(name, False))]
            rights += [("D", self._scope(parent, True)), ("d", self._scope(name, False))]
        return rights

    def done(self, method: str, path: str, status: int) -> None:
        """Remember what was made."""
        name = unquote(urlsplit(path).path)
        if status in (200, 201, 204, 307):
            (self.written if method == "PUT" else self.made if method == "MKCOL" else set()).add(name.rstrip("/"))
            if method == "PUT":
                self.made.add(name.rpartition("/")[0])

    def refusal(self, right: tuple[str, str], method: str, path: str, body: bytes) -> tuple[int, str, bytes]:
        # dCache does not say which right it is.
        return 403, "text/plain", b"Permission denied\n"

    def _entered(self, name: str) -> list[tuple[str, str]]:
        """The right to go into every directory on the way below a root."""
        parent = name.rstrip("/").rpartition("/")[0]
        root = next((each for each in self.roots if f"{parent}/".startswith(f"{each}/")), None)
        if root is None:
            return []
        below = [("x", f"{root}/*/")] if parent != root else []
        return [("x", root), *below]

    def _scope(self, name: str, directory: bool) -> str:
        name = name.rstrip("/") or "/"
        root = next((each for each in self.roots if f"{name}/".startswith(f"{each}/")), None)
        if root is None or name == root:
            return name
        return f"{root}/*/" if directory else f"{root}/*"

    def _of_any(self, name: str) -> str:
        return self._scope(name, name.endswith("/") or name.rstrip("/") in self.made)


class OscarGuard(Guard):
    """By routes: pairs of a method and a path with names in braces."""

    @classmethod
    def of_routes(cls, text: str) -> OscarGuard:
        """Grant the routes of a file."""
        lines = [line.split() for line in text.splitlines() if line.strip() and not line.startswith("#")]
        return cls((method, route) for method, route in lines)

    def needed(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> list[tuple[str, str]]:
        asked = urlsplit(path).path
        for granted in sorted(self.known):
            pattern = re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(granted[1]))
            if granted[0] == method and re.fullmatch(pattern, asked):
                return [granted]
        return [(method, asked)]

    def refusal(self, right: tuple[str, str], method: str, path: str, body: bytes) -> tuple[int, str, bytes]:
        return 403, "text/plain", b"Forbidden\n"


class _Handler(BaseHTTPRequestHandler):
    """Passes on what the guard grants."""

    protocol_version = "HTTP/1.1"
    guard: ClassVar[Guard]
    upstream: ClassVar[str]
    client: ClassVar[httpx.Client]

    def _pass(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        if not self._answered_here(body):
            passed = [(name, value) for name, value in self.headers.items() if name.lower() not in _HOP]
            url = httpx.URL(self.upstream).copy_with(raw_path=self.path.encode())
            answer = self.client.request(self.command, url, content=body, headers=passed)
            if later := self.guard.refused_later(self.command, self.path, answer.status_code):
                self._refuse(later, body)
                return
            self.guard.done(self.command, self.path, answer.status_code)
            self._answer(answer.status_code, dict(answer.headers), answer.content)

    def _answered_here(self, body: bytes) -> bool:
        """Whether the guard answered itself."""
        headers = {name.lower(): value for name, value in self.headers.items()}
        needed = self.guard.needed(self.command, self.path, headers, body)
        self.guard.asked.update(needed)
        missing = [right for right in needed if not self.guard.may(right)]
        if missing:
            self._refuse(missing[0], body)
        elif (broken := self.guard.fault(self.command, self.path)) is not None:
            self._answer(400, {"content-type": "application/xml"}, broken)
        elif own := self.guard.answer(self.path, body):
            self._answer(own[0], {"content-type": "application/json"}, own[1])
        else:
            return False
        return True

    def _refuse(self, right: tuple[str, str], body: bytes) -> None:
        status, kind, text = self.guard.refusal(right, self.command, self.path, body)
        self._answer(status, {"content-type": kind}, text)

    def _answer(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        # Without a date of its own, where the server's is passed on.
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in _HOP | {"content-encoding"}:
                self.send_header(name, value)
        length = headers.get("content-length", "0") if self.command == "HEAD" else str(len(body))
        self.send_header("Content-Length", length)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _pass
    do_PROPFIND = do_MKCOL = do_MOVE = do_OPTIONS = _pass

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of clients that went away."""


@contextmanager
def guarded(upstream: str, guard: Guard) -> Iterator[str]:
    """Serve in front of a server; yields the address.

    :param upstream: URL of the server.
    :param guard: decides.
    """
    with httpx.Client(timeout=60, trust_env=False) as client:
        handler = type("Handler", (_Handler,), {"guard": guard, "upstream": upstream, "client": client})
        with _Server(("127.0.0.1", 0), handler) as server:
            thread = threading.Thread(target=server.serve_forever, daemon=True)
            thread.start()
            try:
                yield f"http://127.0.0.1:{server.server_port}"
            finally:
                server.shutdown()
