# SPDX-License-Identifier: Apache-2.0
"""Requests to dCache's REST frontend, in groups that build on each other and on those to the door."""

from __future__ import annotations

import base64
import time
import uuid

from oscar_testbed.contract.dcache_talk import JSON, ODD, Talk

_NOBODY = "00000000-0000-0000-0000-000000000000"
#: Seconds in which a dCache has worked off a staging request of two files that are not there.
_PATIENCE = 30.0


def namespace(talk: Talk) -> None:
    """Looking at the namespace by REST."""
    talk.ask("user", "GET", f"{talk.api}/user")
    talk.ask("user, nobody", "GET", f"{talk.api}/user", credentials=None)
    role = base64.b64encode(f"{talk.user}#admin:{talk.password}".encode()).decode()
    talk.ask("user with a role", "GET", f"{talk.api}/user", credentials=f"Basic {role}")
    flags = "locality=true&checksum=true"
    for name, path in (
        ("directory", ""),
        ("directory with children", "?children=true"),
        ("directory with children and more", f"?children=true&{flags}"),
        ("directory with slash", "/"),
        ("file", "/a.bin"),
        ("file with more", f"/a.bin?{flags}&xattr=true&labels=true&locations=true&qos=true"),
        ("file with all that is optional", "/a.bin?optional=true"),
        ("empty file", f"/zero.bin?{flags}"),
        ("children of a file", "/a.bin?children=true"),
        ("what is not there", "/nope"),
        ("two children", "?children=true&limit=2"),
        ("two more children", "?children=true&limit=2&offset=2"),
        ("negative limit", "?children=true&limit=-1"),
        ("limit in words", "?children=true&limit=x"),
        ("children=yes", "?children=yes"),
        ("odd name", f"{ODD}?locality=true"),
        ("hidden name", "/.hidden"),
        ("name with a newline", "/n%0Al.bin"),
        ("encoded slash", "%2Fa.bin"),
        ("double slash", "//a.bin"),
        ("path with dots", "/sub/%2E%2E/a.bin"),
    ):
        talk.ask(name, "GET", talk.named(path))
    for name in ("two children", "two more children"):  # which ones is chance
        page = talk.notes[name]
        page["body"]["children"] = len(page["body"]["children"])  # type: ignore[index]
    talk.ask("root", "GET", f"{talk.api}/namespace/?{flags}")
    talk.notes["root"]["body"].pop("nlink", None)  # type: ignore[index]  # others have directories there, too
    talk.ask("root without slash", "GET", f"{talk.api}/namespace?locality=true")
    talk.ask("nobody", "GET", talk.named(""), credentials=None)
    found = talk.ask("file again", "GET", talk.named("/a.bin")).json().get("pnfsId", "")
    for name, identity in (("by id", found), ("by an unknown id", "0" * 36), ("by no id", "xyz")):
        talk.ask(name, "GET", f"{talk.api}/id/{identity}")
    talk.ask("no such resource", "GET", f"{talk.api}/nope")
    talk.ask("root of the frontend", "GET", f"{talk.frontend}/")


def actions(talk: Talk) -> None:
    """Changing the namespace by REST."""
    talk.ask("mkdir", "POST", talk.named(""), body={"action": "mkdir", "name": "made"})
    talk.ask("mkdir again", "POST", talk.named(""), body={"action": "mkdir", "name": "made"})
    talk.ask("mv of what is not there", "POST", talk.named("/nope"), body={"action": "mv", "destination": "moved.bin"})
    talk.ask("mv onto a file", "POST", talk.named("/zero.bin"), body={"action": "mv", "destination": "a.bin"})
    talk.ask("unknown action", "POST", talk.named("/a.bin"), body={"action": "fly"})
    talk.ask("no body", "POST", talk.named("/a.bin"), JSON)
    talk.ask("bad JSON", "POST", talk.named("/a.bin"), JSON, b"{x")
    setting = {"action": "set-xattr", "mode": "CREATE", "attributes": {"k": "v"}}
    for name, body in (
        ("set-xattr", setting),
        ("set-xattr again", setting),
        ("rm-xattr", {"action": "rm-xattr", "names": ["k"]}),
        ("rm-xattr again", {"action": "rm-xattr", "names": ["k"]}),
        ("pin", {"action": "pin", "lifetime": 10, "lifetime-unit": "SECONDS"}),
        ("unpin", {"action": "unpin"}),
    ):
        talk.ask(name, "POST", talk.named("/a.bin"), body=body)
    talk.ask("delete what is not there", "DELETE", talk.named("/nope"))
    talk.ask("delete a file", "DELETE", talk.named("/n%0Al.bin"))


def channels(talk: Talk) -> None:
    """Storage events: types and channels."""
    events = f"{talk.api}/events"
    talk.ask("limits", "GET", events)
    talk.ask("limits, nobody", "GET", events, credentials=None)
    for name, path in (
        ("types", ""),
        ("inotify", "/inotify"),
        ("unknown type", "/nope"),
        ("selector of inotify", "/inotify/selector"),
    ):
        talk.ask(name, "GET", f"{events}/eventTypes{path}")
    talk.ask("create, nobody", "POST", f"{events}/channels", credentials=None)
    first = talk.ask("create", "POST", f"{events}/channels")
    second = talk.ask(
        "create with an id of ours", "POST", f"{events}/channels", body={"client-id": f"probe{talk.base}"}
    )
    talk.places["first"], talk.places["second"] = (talk.here(each.headers["location"]) for each in (first, second))
    talk.ask("create from bad JSON", "POST", f"{events}/channels", JSON, b"{x")
    talk.ask("create with an unknown field", "POST", f"{events}/channels", body={"clientid": "x"})
    for name, identity in (("by id of ours", f"probe{talk.base}"), ("by another id", "zzz")):
        talk.ask(name, "GET", f"{events}/channels?client-id={identity}")
    unknown = f"{events}/channels/AAAAAAAAAAAAAAAAAAAAAA"
    talk.ask("look", "GET", talk.places["first"], {"Accept": "application/json"})
    talk.ask("look at an unknown one", "GET", unknown, {"Accept": "application/json"})
    talk.ask("listen to an unknown one", "GET", unknown, {"Accept": "text/event-stream"})
    for timeout in (0, 100, 86400, 86401, "x"):
        talk.ask(f"timeout {timeout}", "PATCH", talk.places["first"], body={"timeout": timeout})
    talk.ask("change an unknown field", "PATCH", talk.places["first"], body={"time": 1})


def subscriptions(talk: Talk) -> None:
    """Storage events: subscriptions."""
    mine = f"{talk.places['first']}/subscriptions"
    talk.ask("none", "GET", mine)
    flags = ["IN_CLOSE_WRITE", "IN_MOVED_TO", "IN_CREATE", "IN_DELETE_SELF", "IN_MOVE_SELF"]
    for name, selector in (
        ("directory", {"path": talk.base, "flags": flags}),
        ("directory again", {"path": talk.base, "flags": ["IN_CLOSE_WRITE"]}),
        ("another directory", {"path": f"{talk.base}/sub"}),
        ("file", {"path": f"{talk.base}/a.bin"}),
        ("file as a directory", {"path": f"{talk.base}/a.bin", "flags": ["IN_ONLYDIR"]}),
        ("what is not there", {"path": f"{talk.base}/nope"}),
        ("with a slash", {"path": f"{talk.base}/sub/"}),
        ("relative path", {"path": "sub"}),
        ("unknown flag", {"path": talk.base, "flags": ["IN_FLY"]}),
        ("flag not supported", {"path": talk.base, "flags": ["IN_DONT_FOLLOW"]}),
        ("flags as text", {"path": talk.base, "flags": "IN_CREATE"}),
        ("unknown field", {"path": talk.base, "foo": 1}),
    ):
        talk.ask(name, "POST", f"{mine}/inotify", body=selector)
    talk.ask("no body", "POST", f"{mine}/inotify", JSON)
    talk.ask("bad JSON", "POST", f"{mine}/inotify", JSON, b"{x")
    talk.ask("unknown type", "POST", f"{mine}/nope", body={"path": talk.base})
    elsewhere = f"{talk.api}/events/channels/AAAAAAAAAAAAAAAAAAAAAA/subscriptions/inotify"
    talk.ask("unknown channel", "POST", elsewhere, body={"path": talk.base})
    second = f"{talk.places['second']}/subscriptions/inotify"
    talk.ask("no flags", "POST", second, body={"path": talk.base, "flags": []})
    talk.ask("root", "POST", second, body={"path": "/", "flags": ["IN_CREATE"]})
    ticking = talk.ask("metronome", "POST", f"{mine}/metronome", body={"delay": 2, "message": "hb", "count": 2})
    talk.ask("metronome with both", "POST", f"{mine}/metronome", body={"delay": 2, "frequency": 2})
    talk.ask("metronome too slow", "POST", f"{mine}/metronome", body={"delay": 301})
    talk.ask("list", "GET", mine)
    talk.ask("look", "GET", talk.here(ticking.headers["location"]))
    _end(talk)
    talk.ask("delete the channel", "DELETE", talk.places["second"])
    talk.ask("delete it again", "DELETE", talk.places["second"])
    talk.ask("delete the other", "DELETE", talk.places["first"])


def _end(talk: Talk) -> None:
    """End a subscription whose id holds a slash and one whose id does not, which chance decides."""
    made: dict[bool, str] = {}
    mine = {"Authorization": talk.login}
    for _ in range(200):
        path = f"/chance/{uuid.uuid4()}"
        talk.client.put(talk.at(path), headers=mine)
        place = f"{talk.places['first']}/subscriptions/inotify"
        answer = talk.client.post(place, json={"path": talk.base + path}, headers=mine)
        url = talk.here(answer.headers["location"])
        made.setdefault("%2F" in url, url)
        if len(made) == 2:
            break
    for name, slash in (("plain id", False), ("id with a slash", True)):
        talk.ask(f"{name}: look", "GET", made[slash])
        talk.ask(f"{name}: delete", "DELETE", made[slash])
        talk.ask(f"{name}: delete again", "DELETE", made[slash])


def staging(talk: Talk) -> None:
    """The WLCG Tape REST API; no file here is on tape."""
    base, stage = talk.base, f"{talk.api}/tape/stage"
    paths = [f"{base}/a.bin", f"{base}/nope", f"{base}/sub", f"{base}/a.bin"]
    talk.ask("archiveinfo", "POST", f"{talk.api}/tape/archiveinfo", body={"paths": paths})
    talk.ask("archiveinfo without paths", "POST", f"{talk.api}/tape/archiveinfo", body={"foo": 1})
    wanted = [{"path": f"{base}/gone", "diskLifetime": "PT60S"}, {"path": f"{base}/nope"}]
    made = talk.ask("stage", "POST", stage, body={"files": wanted}).json()["requestId"]
    _settled(talk, f"{stage}/{made}", "completedAt")
    talk.ask("look", "GET", f"{stage}/{made}")
    talk.ask("look at an unknown one", "GET", f"{stage}/{_NOBODY}")
    one = [{"path": f"{base}/gone"}]
    talk.ask("unknown field", "POST", stage, body={"files": one, "foo": 1})
    talk.ask("no files", "POST", stage, body={"files": []})
    talk.ask("bad lifetime", "POST", stage, body={"files": [{**one[0], "diskLifetime": "1 day"}]})
    talk.ask("501 files", "POST", stage, body={"files": [{"path": f"{base}/f{number}"} for number in range(501)]})
    talk.ask("cancel", "POST", f"{stage}/{made}/cancel", body={"paths": [f"{base}/gone"]})
    talk.ask("release", "POST", f"{talk.api}/tape/release/{made}", body={"paths": [f"{base}/gone"]})
    talk.ask("delete", "DELETE", f"{stage}/{made}")
    talk.ask("look at the deleted", "GET", f"{stage}/{made}")
    talk.ask("well-known", "GET", f"{talk.frontend}/.well-known/wlcg-tape-rest-api")


def bulk(talk: Talk) -> None:
    """Bulk requests."""
    service, base = f"{talk.api}/bulk-requests", talk.base
    order = {
        "target": [f"{base}/gone", f"{base}/nope"],
        "activity": "PIN",
        "expandDirectories": "NONE",
        "arguments": {"lifetime": "1", "lifetimeUnit": "MINUTES"},
    }
    made = talk.here(talk.ask("submit", "POST", service, body=order).headers["request-url"])
    _settled(talk, made, "COMPLETED")
    talk.ask("look", "GET", made)
    talk.ask("cancel what is done", "PATCH", made, body={"action": "cancel"})
    talk.ask("unknown change", "PATCH", made, body={"action": "fly"})
    talk.ask("delete", "DELETE", made)
    talk.ask("look at the deleted", "GET", made)
    talk.ask("unknown activity", "POST", service, body={**order, "activity": "FLY"})
    talk.ask("look at an unknown one", "GET", f"{service}/{_NOBODY}")


def _settled(talk: Talk, url: str, word: str) -> None:
    """Wait until the answer holds a word."""
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        if word in talk.client.get(url, headers={"Authorization": talk.login}).text:
            return
        time.sleep(0.2)
