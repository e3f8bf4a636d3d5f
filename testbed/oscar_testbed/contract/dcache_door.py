# SPDX-License-Identifier: Apache-2.0
"""Requests to dCache's WebDAV door and its pools, in groups that build on each other."""

from __future__ import annotations

import base64
import http.client
import json
from collections.abc import Mapping
from urllib.parse import urlsplit

import httpx

from oscar_testbed.contract.dcache_answers import comparable
from oscar_testbed.contract.dcache_talk import ODD, Talk

_XML = {"Content-Type": "application/xml; charset=utf-8"}
_MACAROON = {"Content-Type": "application/macaroon-request"}
_PROPERTIES = (
    b'<?xml version="1.0" encoding="utf-8"?>\n<D:propfind xmlns:D="DAV:" xmlns:C="http://www.dcache.org/2013/webdav" '
    b'xmlns:S="http://srm.lbl.gov/StorageResourceManager"><D:prop><D:resourcetype/><D:getcontentlength/>'
    b"<D:getlastmodified/><D:getetag/><C:Checksums/><S:FileLocality/></D:prop></D:propfind>"
)
_PROPPATCH = (
    b'<?xml version="1.0"?><D:propertyupdate xmlns:D="DAV:" xmlns:X="http://www.dcache.org/2020/xattr"><D:set><D:prop>'
    b"<X:oscar>v</X:oscar></D:prop></D:set></D:propertyupdate>"
)
_LOCK = (
    b'<?xml version="1.0"?><D:lockinfo xmlns:D="DAV:"><D:lockscope><D:exclusive/></D:lockscope>'
    b"<D:locktype><D:write/></D:locktype></D:lockinfo>"
)


def files(talk: Talk) -> None:
    """Directories and uploads."""
    talk.ask("make a directory", "MKCOL", talk.at(""))
    talk.ask("make it again", "MKCOL", talk.at(""))
    talk.ask("make it again, with a slash", "MKCOL", talk.at("/"))
    talk.ask("make one without parent", "MKCOL", talk.at("/x/y/z/"))
    talk.ask("make another", "MKCOL", talk.at("/sub/"))
    talk.ask("put", "PUT", talk.at("/a.bin"), content=b"hello")
    talk.ask(
        "put, Want-Digest", "PUT", talk.at("/t.txt"), {"Content-Type": "text/plain", "Want-Digest": "adler32"}, b"hello"
    )
    talk.ask("put, Want-Repr-Digest", "PUT", talk.at("/t2.txt"), {"Want-Repr-Digest": "adler=1"}, b"hello")
    talk.ask("put nothing", "PUT", talk.at("/zero.bin"))
    talk.ask("put over a file", "PUT", talk.at("/a.bin"), content=b"hello2")
    talk.ask("put over a file, unless it is there", "PUT", talk.at("/a.bin"), {"If-None-Match": "*"}, b"hello3")
    wrong = base64.b64encode(b"0" * 16).decode()
    talk.ask("put with a wrong MD5", "PUT", talk.at("/bad.bin"), {"Content-MD5": wrong}, b"hello3")
    talk.ask("put with a wrong adler32", "PUT", talk.at("/bad2.bin"), {"Digest": "adler32=00000000"}, b"hello3")
    talk.ask("put below what is not there", "PUT", talk.at("/n1/n2/f.bin"), content=b"x")
    talk.ask("put onto a directory", "PUT", talk.at("/sub"), content=b"x")
    talk.ask("put a part", "PUT", talk.at("/cr.bin"), {"Content-Range": "bytes 0-3/10"}, b"abcd")
    talk.ask("put an odd name", "PUT", talk.at(ODD), content=b"odd")
    talk.ask("put a hidden name", "PUT", talk.at("/.hidden"), content=b"odd")
    talk.ask("put a name with a newline", "PUT", talk.at("/n%0Al.bin"), content=b"odd")
    talk.ask("put a path with dots", "PUT", talk.at("/sub/..%2Fesc.bin"), content=b"odd")


def reads(talk: Talk) -> None:
    """GET, HEAD and OPTIONS."""
    talk.ask("get", "GET", talk.at("/a.bin"))
    talk.ask("get a range", "GET", talk.at("/a.bin"), {"Range": "bytes=0-1"})
    talk.ask("get what is not there", "GET", talk.at("/nope"))
    talk.ask("get a directory without slash", "GET", talk.at("/sub"))
    talk.ask("get a directory", "GET", talk.at("/sub/"))
    talk.ask("head", "HEAD", talk.at("/a.bin"))
    talk.ask("head, Want-Digest", "HEAD", talk.at("/a.bin"), {"Want-Digest": "adler32"})
    talk.ask("head, Want-Repr-Digest", "HEAD", talk.at("/a.bin"), {"Want-Repr-Digest": "adler=5, md5=3"})
    talk.ask("head of what is not there", "HEAD", talk.at("/nope"))
    talk.ask("head of a directory", "HEAD", talk.at("/sub/"))
    talk.ask("options", "OPTIONS", talk.at("/"))


def pools(talk: Talk) -> None:
    """What the pools answer to which the door redirects, who are not asked with credentials."""
    for name, more in (("whole", {}), ("range", {"Range": "bytes=0-1"}), ("Want-Digest", {"Want-Digest": "adler32"})):
        place = talk.at("/a.bin")
        answer = talk.client.get(place, headers={"Authorization": talk.login})
        target = answer.headers["location"]
        talk.ask(f"get, {name}", "GET", target, more, credentials="none")
        talk.ask(f"get, {name}, again", "GET", target, more, credentials="none")
    answer = talk.client.get(talk.at(ODD), headers={"Authorization": talk.login})
    talk.ask("get an odd name", "GET", answer.headers["location"], credentials="none")
    talk.notes["put, Expect"] = expecting(talk, talk.at("/expected.bin"))
    target = talk.places.pop("pool")
    talk.ask("put", "PUT", target, content=b"12345", credentials="none")
    talk.ask("head of what was put", "HEAD", talk.at("/expected.bin"), {"Want-Digest": "adler32"})
    talk.ask("delete what was put", "DELETE", talk.at("/expected.bin"))


def expecting(talk: Talk, url: str) -> dict[str, object]:
    """Announce a body, wait for leave to send it, and return the answer that comes instead.

    httpx sends bodies at once, so that this is done by hand.
    """
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port
    connection = (
        http.client.HTTPSConnection(host, port, timeout=30, context=talk.tls)
        if parts.scheme == "https"
        else http.client.HTTPConnection(host, port, timeout=30)
    )
    try:
        connection.putrequest("PUT", parts.path)
        for name, value in (("Authorization", talk.login), ("Content-Length", "5"), ("Expect", "100-continue")):
            connection.putheader(name, value)
        connection.endheaders()
        answer = connection.getresponse()
        body = answer.read()
        found = httpx.Response(
            answer.status, headers=list(answer.getheaders()), content=body, request=httpx.Request("PUT", url)
        )
        talk.places["pool"] = found.headers.get("location", "")
        return comparable(found, talk)
    finally:
        connection.close()


def properties(talk: Talk) -> None:
    """PROPFIND."""

    def find(name: str, url: str, depth: str, body: bytes = _PROPERTIES) -> None:
        talk.ask(name, "PROPFIND", url, {**(_XML if body else {}), "Depth": depth}, body)

    find("directory", talk.at("/"), "0")
    find("directory without slash", talk.at(""), "0")
    find("directory and children", talk.at("/"), "1")
    find("file", talk.at("/a.bin"), "0")
    find("file with slash", talk.at("/a.bin/"), "0")
    find("children of a file", talk.at("/a.bin/"), "1")
    find("what is not there", talk.at("/nope/"), "1")
    find("root", talk.door + "/", "0")
    find("all properties", talk.at("/a.bin"), "0", b"")
    find("infinite depth", talk.at("/"), "infinity")
    find("bad XML", talk.at("/"), "0", b"<nope")


def moves(talk: Talk) -> None:
    """MOVE, COPY, DELETE, PROPPATCH, and what is not there at all."""

    def move(name: str, source: str, target: str, **headers: str) -> None:
        talk.ask(name, "MOVE", talk.at(source), {"Destination": talk.at(target), **headers})

    move("move", "/t.txt", "/sub/t.txt", Overwrite="F")
    move("move onto a file, F", "/t2.txt", "/sub/t.txt", Overwrite="F")
    move("move onto a file, T", "/t2.txt", "/sub/t.txt", Overwrite="T")
    move("move onto a file, unsaid", "/zero.bin", "/sub/t.txt")
    move("move what is not there", "/nope", "/sub/n.txt", Overwrite="F")
    move("move below what is not there", "/a.bin", "/noparent/n.txt", Overwrite="F")
    talk.ask("copy", "COPY", talk.at("/a.bin"), {"Destination": talk.at("/copy.bin")})
    talk.ask("delete what is not there", "DELETE", talk.at("/nope"))
    talk.ask("delete a full directory", "DELETE", talk.at("/sub/"))
    talk.ask("delete it again, without slash", "DELETE", talk.at("/sub"))
    talk.ask("put into what was deleted", "PUT", talk.at("/sub/again.bin"), content=b"1")
    talk.ask("set an attribute", "PROPPATCH", talk.at("/a.bin"), _XML, _PROPPATCH)
    talk.ask("lock", "LOCK", talk.at("/a.bin"), _XML, _LOCK)
    talk.ask("post", "POST", talk.at("/a.bin"), content=b"x")


def macaroons(talk: Talk) -> None:
    """Macaroon requests."""

    def mint(
        name: str, path: str, body: object, headers: Mapping[str, str] | None = None, login: str | None = ""
    ) -> str:
        content = b"" if body is None else json.dumps(body).encode()
        answer = talk.ask(name, "POST", talk.at(path), {**_MACAROON, **(headers or {})}, content, credentials=login)
        return f"Bearer {answer.json()['macaroon']}" if answer.status_code == 200 else ""

    hour: dict[str, object] = {"validity": "PT1H"}
    reading, writing = "activity:DOWNLOAD,READ_METADATA", "activity:UPLOAD,DELETE,LIST,READ_METADATA"
    talk.tokens["download"] = mint("for a file", "/a.bin", {"caveats": [reading], **hour})
    talk.tokens["upload"] = mint(
        "for a directory", "/out", {"caveats": [writing, "max-upload:10"], "validity": "PT3600S"}
    )
    mint("empty body", "/a.bin", None)
    mint("unknown activity", "/a.bin", {"caveats": ["activity:FLY"], **hour})
    mint("validity in words", "/a.bin", {"validity": "1 hour"})
    mint("validity of 30 days", "/a.bin", {"validity": "P30D"})
    mint("unknown field", "/a.bin", {"foo": 1, **hour})
    mint("unknown caveat", "/a.bin", {"caveats": ["foo:bar"], **hour})
    mint("before a time in the past", "/a.bin", {"caveats": ["before:2020-01-01T00:00:00Z"]})
    mint("path below the path", "/", {"caveats": ["path:/sub"], **hour})
    mint("from nobody", "/a.bin", hour, login=None)
    mint("with a charset", "/a.bin", hour, {"Content-Type": "application/macaroon-request; charset=utf-8"})
    mint("for what is not there", "/nope/nope", hour)
    talk.ask("make the directory", "MKCOL", talk.at("/out/"))


def download(talk: Talk) -> None:
    """What a macaroon for reading one file opens."""
    token = talk.tokens["download"]
    talk.ask("get", "GET", talk.at("/a.bin"), credentials=token)
    talk.ask("head", "HEAD", talk.at("/a.bin"), credentials=token)
    talk.ask("get another", "GET", talk.at("/zero.bin"), credentials=token)
    for name, path, depth in (("properties", "/a.bin", "0"), ("children of the parent", "/", "1")):
        talk.ask(name, "PROPFIND", talk.at(path), {**_XML, "Depth": depth}, _PROPERTIES, credentials=token)
    talk.ask("put", "PUT", talk.at("/a.bin"), content=b"zz", credentials=token)
    talk.ask("delete", "DELETE", talk.at("/a.bin"), credentials=token)
    talk.ask("mint from it", "POST", talk.at("/a.bin"), _MACAROON, b'{"validity": "PT10M"}', credentials=token)
    talk.ask("user at the frontend", "GET", f"{talk.api}/user", credentials=token)
    talk.ask("file at the frontend", "GET", talk.named("/a.bin"), credentials=token)
    talk.ask("parent at the frontend", "GET", talk.named("?children=true"), credentials=token)


def upload(talk: Talk) -> None:
    """What a macaroon for writing to one directory opens."""
    token = talk.tokens["upload"]
    for name, path, content in (
        ("put", "/out/r.bin", b"12345"),
        ("put over it", "/out/r.bin", b"1234567"),
        ("put too much", "/out/big.bin", b"123456789012345"),
        ("put below what is not there", "/out/d/e/r.bin", b"12"),
    ):
        talk.ask(name, "PUT", talk.at(path), content=content, credentials=token)
    talk.ask("make a directory", "MKCOL", talk.at("/out/m/"), credentials=token)
    talk.ask("make its own directory", "MKCOL", talk.at("/out/"), credentials=token)
    talk.ask("list", "PROPFIND", talk.at("/out/"), {**_XML, "Depth": "1"}, _PROPERTIES, credentials=token)
    talk.ask("head", "HEAD", talk.at("/out/r.bin"), {"Want-Digest": "adler32"}, credentials=token)
    talk.ask("get", "GET", talk.at("/out/r.bin"), credentials=token)
    talk.ask("put elsewhere", "PUT", talk.at("/outside.bin"), content=b"12", credentials=token)
    talk.ask("move", "MOVE", talk.at("/out/r.bin"), {"Destination": talk.at("/out/r2.bin")}, credentials=token)
    talk.ask("delete", "DELETE", talk.at("/out/r.bin"), credentials=token)
    talk.ask("delete what is not there", "DELETE", talk.at("/out/r-nope.bin"), credentials=token)
    talk.ask("delete its own directory", "DELETE", talk.at("/out/"), credentials=token)
    query = token.removeprefix("Bearer ")
    talk.ask("in the query", "HEAD", f"{talk.at('/out/r2.bin')}?authz={query}", credentials=None)
