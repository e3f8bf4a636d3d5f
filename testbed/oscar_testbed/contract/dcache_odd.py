# SPDX-License-Identifier: Apache-2.0
"""Requests that clients of dCache seldom make: conditions, ranges, odd verbs, labels, attributes, quotas, bulk."""

from __future__ import annotations

from oscar_testbed.contract.dcache_talk import JSON, Talk

_XML = {"Content-Type": "application/xml"}
_NAMES = b'<D:propfind xmlns:D="DAV:"><D:propname/></D:propfind>'
_ALL = b'<D:propfind xmlns:D="DAV:"><D:allprop/></D:propfind>'
_UNKNOWN = b'<D:propfind xmlns:D="DAV:" xmlns:x="urn:x"><D:prop><x:none/><D:displayname/></D:prop></D:propfind>'
_REMOVE = (
    b'<?xml version="1.0"?><D:propertyupdate xmlns:D="DAV:" xmlns:X="http://www.dcache.org/2020/xattr"><D:remove>'
    b"<D:prop><X:none/></D:prop></D:remove></D:propertyupdate>"
)
_PROTECTED = (
    b'<?xml version="1.0"?><D:propertyupdate xmlns:D="DAV:"><D:set><D:prop><D:getetag>x</D:getetag></D:prop></D:set>'
    b"</D:propertyupdate>"
)


def conditions(talk: Talk) -> None:
    """If-Match and its kin, at the door."""
    talk.ask("put", "PUT", talk.at("/odd/c.bin"), content=b"0123456789")
    tag = talk.ask("head", "HEAD", talk.at("/odd/c.bin")).headers["etag"]
    past, future = "Sat, 01 Jan 2000 00:00:00 GMT", "Fri, 01 Jan 2100 00:00:00 GMT"
    for verb in ("GET", "HEAD"):
        for name, headers in (
            ("If-Match, same", {"If-Match": tag}),
            ("If-Match, other", {"If-Match": '"other"'}),
            ("If-Match, any", {"If-Match": "*"}),
            ("If-None-Match, same", {"If-None-Match": tag}),
            ("If-None-Match, other", {"If-None-Match": '"other"'}),
            ("If-None-Match, any", {"If-None-Match": "*"}),
            ("If-Modified-Since, past", {"If-Modified-Since": past}),
            ("If-Modified-Since, future", {"If-Modified-Since": future}),
            ("If-Unmodified-Since, past", {"If-Unmodified-Since": past}),
            ("If-Unmodified-Since, future", {"If-Unmodified-Since": future}),
            ("Range with If-Range", {"Range": "bytes=0-1", "If-Range": '"other"'}),
            ("Accept JSON", {"Accept": "application/json"}),
            ("Accept metalink", {"Accept": "application/metalink4+xml"}),
        ):
            talk.ask(f"{verb} {name}", verb, talk.at("/odd/c.bin"), headers)
    for name, headers in (
        ("If-Match, other", {"If-Match": '"other"'}),
        ("If-Match, any", {"If-Match": "*"}),
        ("If-None-Match, other", {"If-None-Match": '"other"'}),
        ("If-Unmodified-Since, past", {"If-Unmodified-Since": past}),
    ):
        talk.ask(f"PUT {name}", "PUT", talk.at("/odd/c2.bin"), headers, b"x")
    for name, headers in (("same", {"If-Match": tag}), ("other", {"If-Match": '"other"'}), ("any", {"If-Match": "*"})):
        talk.ask(f"PUT over a file, If-Match, {name}", "PUT", talk.at("/odd/c.bin"), headers, b"x")
    talk.ask("DELETE If-Match, other", "DELETE", talk.at("/odd/c.bin"), {"If-Match": '"other"'})
    talk.ask("DELETE of what is gone", "DELETE", talk.at("/odd/c.bin"), {"If-Match": "*"})


def ranges(talk: Talk) -> None:
    """Parts of a file, at the pool that the door names."""
    talk.ask("put", "PUT", talk.at("/odd/r.bin"), content=b"0123456789")
    for number, wanted in enumerate(
        ("bytes=0-0", "bytes=9-", "bytes=-3", "bytes=5-100", "bytes=10-", "bytes=20-30", "bytes=5-2", "bytes=0-1,4-5",
         "bytes=-0", "bytes=-100", "items=0-1", "bytes=a-b", "bytes=", "bytes=0-9")
    ):  # fmt: skip
        place = talk.client.get(talk.at("/odd/r.bin"), headers={"Authorization": talk.login}).headers["location"]
        talk.ask(f"{number} {wanted}", "GET", place, {"Range": wanted}, credentials="none")
    for name, method, headers in (
        ("head at the pool", "HEAD", {}),
        ("options at the pool", "OPTIONS", {}),
        ("delete at the pool", "DELETE", {}),
        ("post at the pool", "POST", {}),
        ("If-None-Match at the pool", "GET", {"If-None-Match": "*"}),
        ("Accept-Encoding at the pool", "GET", {"Accept-Encoding": "gzip"}),
    ):
        place = talk.client.get(talk.at("/odd/r.bin"), headers={"Authorization": talk.login}).headers["location"]
        talk.ask(name, method, place, headers, credentials="none")


def verbs(talk: Talk) -> None:
    """Verbs and headers that are seldom used, at the door."""
    talk.ask("put", "PUT", talk.at("/odd/v.bin"), content=b"v")
    there, target = talk.at("/odd/v.bin"), {"Destination": talk.at("/odd/w.bin")}
    for verb in ("PATCH", "TRACE", "UNLOCK", "REPORT", "SEARCH", "BIND"):
        talk.ask(verb, verb, there)
    talk.ask("OPTIONS of a file", "OPTIONS", there)
    talk.ask("OPTIONS of what is not there", "OPTIONS", talk.at("/odd/none"))
    talk.ask("OPTIONS, nobody", "OPTIONS", there, credentials=None)
    for name, headers in (
        ("without destination", {}),
        ("to another server", {"Destination": "https://other.example.org/x"}),
        ("to a path", {"Destination": f"{talk.base}/odd/p.bin"}),
        ("onto itself", {"Destination": there}),
        ("odd overwrite", {**target, "Overwrite": "maybe"}),
        ("back", {"Destination": there}),
        ("into itself", {"Destination": talk.at("/odd/v.bin/x")}),
    ):
        source = talk.at("/odd/w.bin") if name == "back" else there
        talk.ask(f"MOVE {name}", "MOVE", source, headers)
    talk.ask("MOVE a directory below itself", "MOVE", talk.at("/odd/"), {"Destination": talk.at("/odd/in/")})
    talk.ask("put another", "PUT", talk.at("/odd/y.bin"), content=b"y")
    other = talk.at("/odd/y.bin")
    talk.ask("COPY to another server", "COPY", other, {"Destination": "https://other.example.org/x"})
    talk.ask("COPY without either", "COPY", other)
    talk.ask("COPY, both", "COPY", other, {**target, "Source": "https://other.example.org/x"})
    talk.ask("MKCOL with a body", "MKCOL", talk.at("/odd/m1/"), _XML, b"<x/>")
    talk.ask("MKCOL onto a file", "MKCOL", there)
    talk.ask("MKCOL below a file", "MKCOL", talk.at("/odd/v.bin/d/"))
    talk.ask("PUT below a file", "PUT", talk.at("/odd/v.bin/f"), content=b"x")
    talk.ask("GET below a file", "GET", talk.at("/odd/v.bin/f"))
    talk.ask("DELETE below a file", "DELETE", talk.at("/odd/v.bin/f"))
    talk.ask("PUT, nobody", "PUT", talk.at("/odd/n.bin"), content=b"x", credentials=None)
    talk.ask("GET, nobody", "GET", there, credentials=None)
    talk.ask("GET, broken login", "GET", there, {"X-Forwarded-For": "10.2.0.1"}, credentials="Basic !!!")
    talk.ask("GET, unknown scheme", "GET", there, {"X-Forwarded-For": "10.2.0.2"}, credentials="Negotiate abc")
    talk.ask("GET, no token", "GET", there, {"X-Forwarded-For": "10.2.0.3"}, credentials="Bearer abc")
    for depth in ("2", "x", "1,noroot", "0, 1"):
        talk.ask(f"PROPFIND depth {depth}", "PROPFIND", talk.at("/odd/"), {**_XML, "Depth": depth}, _UNKNOWN)
    talk.ask("PROPFIND without depth", "PROPFIND", there, _XML, _UNKNOWN)
    talk.ask("PROPFIND of names", "PROPFIND", there, {**_XML, "Depth": "0"}, _NAMES)
    talk.ask("PROPFIND of all", "PROPFIND", there, {**_XML, "Depth": "0"}, _ALL)
    talk.ask("PROPFIND, JSON", "PROPFIND", there, {**JSON, "Depth": "0"}, b"{}")
    talk.ask("PROPFIND, nobody", "PROPFIND", there, {**_XML, "Depth": "0"}, _UNKNOWN, credentials=None)
    talk.ask("PROPPATCH removes what is not there", "PROPPATCH", there, _XML, _REMOVE)
    talk.ask("PROPPATCH of what is the server's", "PROPPATCH", there, _XML, _PROTECTED)
    talk.ask("PROPPATCH, no body", "PROPPATCH", there, _XML)
    talk.ask("PROPPATCH of what is not there", "PROPPATCH", talk.at("/odd/none"), _XML, _REMOVE)


def attributes(talk: Talk) -> None:
    """Labels, extended attributes, modes, groups and quotas, by REST."""
    talk.ask("put", "PUT", talk.at("/odd/l.bin"), content=b"l")
    there = talk.named("/odd/l.bin")
    for name, body in (
        ("label", {"action": "set-label", "label": "red"}),
        ("label again", {"action": "set-label", "label": "red"}),
        ("odd label", {"action": "set-label", "label": "ü 1/2"}),
        ("empty label", {"action": "set-label", "label": ""}),
        ("no label", {"action": "set-label"}),
        ("remove a label", {"action": "rm-label", "label": "red"}),
        ("remove it again", {"action": "rm-label", "label": "red"}),
        ("attribute, either", {"action": "set-xattr", "mode": "EITHER", "attributes": {"a": "1", "b": "ü"}}),
        ("attribute, modify", {"action": "set-xattr", "mode": "MODIFY", "attributes": {"a": "2"}}),
        ("attribute, modify what is not there", {"action": "set-xattr", "mode": "MODIFY", "attributes": {"z": "2"}}),
        ("attribute, unknown mode", {"action": "set-xattr", "mode": "FLY", "attributes": {"a": "2"}}),
        ("attribute, no mode", {"action": "set-xattr", "attributes": {"c": "2"}}),
        ("attribute, number", {"action": "set-xattr", "attributes": {"n": 2}}),
        ("attributes, none", {"action": "set-xattr", "attributes": {}}),
        ("attributes, missing", {"action": "set-xattr"}),
        ("remove one as text", {"action": "rm-xattr", "names": "a"}),
        ("remove none", {"action": "rm-xattr"}),
        ("mode", {"action": "chmod", "mode": 420}),
        ("mode as text", {"action": "chmod", "mode": "x"}),
        ("no mode", {"action": "chmod"}),
        ("group", {"action": "chgrp", "gid": 987654}),
        ("no group", {"action": "chgrp"}),
        ("mkdir below a file", {"action": "mkdir", "name": "x"}),
        ("mkdir without name", {"action": "mkdir"}),
        ("mv without destination", {"action": "mv"}),
        ("pin without lifetime", {"action": "pin"}),
        ("unpin again", {"action": "unpin"}),
        ("no action", {"foo": "x"}),
        ("list", ["x"]),
    ):
        talk.ask(name, "POST", there, body=body)
    talk.ask("as text", "POST", there, {"Content-Type": "text/plain"}, b'{"action": "unpin"}')
    talk.ask("what it has now", "GET", f"{there}?xattr=true&labels=true&locality=true")
    talk.ask("children with labels", "GET", talk.named("/odd?children=true&labels=true&xattr=true"))
    talk.ask("offset in words, no children", "GET", f"{talk.api}/namespace/?offset=x")
    talk.notes["offset in words, no children"]["body"].pop("nlink", None)  # type: ignore[index]  # others make some
    talk.ask("put at the namespace", "PUT", there)
    talk.ask("patch at the namespace", "PATCH", there, body={})
    talk.ask("delete a full directory", "DELETE", talk.named("/odd"))
    talk.ask("delete the root", "DELETE", f"{talk.api}/namespace/")


def more_bulk(talk: Talk) -> None:
    """Bulk and staging requests of other forms."""
    service, base = f"{talk.api}/bulk-requests", talk.base
    order = {"target": [f"{base}/gone"], "activity": "PIN", "expandDirectories": "NONE"}
    for name, body in (
        ("no target", {"activity": "PIN"}),
        ("empty target", {**order, "target": []}),
        ("target as text", {**order, "target": f"{base}/gone"}),
        ("no activity", {"target": [f"{base}/gone"]}),
        ("unknown expansion", {**order, "expandDirectories": "SOME"}),
        ("unknown argument", {**order, "arguments": {"fly": "1"}}),
        ("bad argument", {**order, "arguments": {"lifetime": "x"}}),
        ("unknown field", {**order, "foo": 1}),
        ("list", ["x"]),
    ):
        talk.ask(name, "POST", service, body=body)
    talk.ask("bad JSON", "POST", service, JSON, b"{x")
    talk.ask("no body", "POST", service, JSON)
    talk.ask("list of an unknown owner", "GET", f"{service}?owner=nobody")
    talk.ask("list of a status in words", "GET", f"{service}?status=flying")
    talk.ask("change an unknown one", "PATCH", f"{service}/{'0' * 8}", body={"action": "cancel"})
    talk.ask("delete an unknown one", "DELETE", f"{service}/{'0' * 8}")
    stage = f"{talk.api}/tape/stage"
    stages: dict[str, object] = {
        "stage a list": ["x"],
        "stage without files": {},
        "stage files as text": {"files": "x"},
        "stage without path": {"files": [{"diskLifetime": "PT1S"}]},
        "stage a relative path": {"files": [{"path": "x"}]},
    }
    for name, asked in stages.items():
        talk.ask(name, "POST", stage, body=asked)
    talk.ask("stage, bad JSON", "POST", stage, JSON, b"{x")
    talk.ask("stage, nobody", "POST", stage, body={"files": [{"path": f"{base}/gone"}]}, credentials=None)
    talk.ask("archiveinfo, nobody", "POST", f"{talk.api}/tape/archiveinfo", body={"paths": []}, credentials=None)
    talk.ask("archiveinfo of nothing", "POST", f"{talk.api}/tape/archiveinfo", body={"paths": []})
    talk.ask("cancel an unknown one", "POST", f"{stage}/none/cancel", body={"paths": [f"{base}/gone"]})
    talk.ask("release an unknown one", "POST", f"{talk.api}/tape/release/none", body={"paths": [f"{base}/gone"]})
    talk.ask("delete an unknown stage", "DELETE", f"{stage}/none")
