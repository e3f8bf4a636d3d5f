# SPDX-License-Identifier: Apache-2.0
"""Images as OCI layouts, and a registry that serves them: what a node asks when a pod says ``imagePullPolicy: Always``.

The registry speaks the part of the distribution specification that a pull needs, over plain HTTP on loopback, which
container runtimes accept for this address alone.
"""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Mapping, Sequence
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from oscar_testbed.process import LOOPBACK
from oscar_testbed.webserver import AsgiServer

_TYPE = "application/vnd.oci.image"
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def write_layout(root: Path, target: Path, *, environment: Mapping[str, str], command: Sequence[str]) -> None:
    """Write a root file system as an image of one layer.

    :param root: all of it belongs to root in the image.
    :param target: directory, made here, that becomes an OCI layout.
    """
    blobs = target / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    (target / "oci-layout").write_text(json.dumps({"imageLayoutVersion": "1.0.0"}))
    layer = target / "layer.tar"
    with tarfile.open(layer, "w") as tar:
        tar.add(root, arcname=".", filter=owned_by_root)
    with layer.open("rb") as file:
        digest = file_digest(file, "sha256").hexdigest()
    size = layer.stat().st_size
    layer.rename(blobs / digest)
    layers = [{"mediaType": f"{_TYPE}.layer.v1.tar", "digest": f"sha256:{digest}", "size": size}]
    settings = {"Env": [f"{name}={value}" for name, value in environment.items()], "Cmd": list(command)}
    file_system = {"type": "layers", "diff_ids": [f"sha256:{digest}"]}
    config = {"architecture": "amd64", "os": "linux", "config": settings, "rootfs": file_system}
    described = _blob(blobs, config, f"{_TYPE}.config.v1+json")
    manifest = {"schemaVersion": 2, "mediaType": f"{_TYPE}.manifest.v1+json", "config": described, "layers": layers}
    index = {"schemaVersion": 2, "manifests": [_blob(blobs, manifest, f"{_TYPE}.manifest.v1+json")]}
    (target / "index.json").write_text(json.dumps(index))


def _blob(blobs: Path, content: Mapping[str, Any], kind: str) -> dict[str, Any]:
    data = json.dumps(content).encode()
    digest = sha256(data).hexdigest()
    (blobs / digest).write_bytes(data)
    return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(data)}


def owned_by_root(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """A member of a layer: whoever unpacked the files here is nobody in the image."""
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry


class Registry:
    """Serves layouts as repositories of one image each, whatever tag is asked for.

    :param layouts: by repository name.
    """

    name = "image registry"

    def __init__(self, layouts: Mapping[str, Path]) -> None:
        self._layouts = dict(layouts)
        routes = [
            Route("/v2/", lambda _: JSONResponse({})),
            Route("/v2/{name}/manifests/{reference}", self._manifest),
            Route("/v2/{name}/blobs/{digest}", self._blob),
        ]
        self._server = AsgiServer(Starlette(routes=routes))

    def start(self) -> None:
        """Serve on a free port."""
        self._server.start()

    def stop(self) -> None:
        """Stop serving."""
        self._server.stop()

    def healthy(self) -> bool:
        """Whether it serves."""
        return self._server.running

    def reference(self, repository: str) -> str:
        """What pods call an image."""
        return f"{LOOPBACK}:{self._server.port}/{repository}:1"

    def _manifest(self, request: Request) -> Response:
        layout = self._layouts.get(request.path_params["name"])
        if layout is None:
            return _unknown("NAME_UNKNOWN")
        entry = json.loads((layout / "index.json").read_text())["manifests"][0]
        wanted = request.path_params["reference"]
        if ":" in wanted and wanted != entry["digest"]:
            return _unknown("MANIFEST_UNKNOWN")
        headers = {"Docker-Content-Digest": entry["digest"]}
        return FileResponse(_path(layout, entry["digest"]), media_type=entry["mediaType"], headers=headers)

    def _blob(self, request: Request) -> Response:
        layout, digest = self._layouts.get(request.path_params["name"]), request.path_params["digest"]
        if layout is None or not _DIGEST.fullmatch(digest) or not _path(layout, digest).is_file():
            return _unknown("BLOB_UNKNOWN")
        headers = {"Docker-Content-Digest": digest}
        return FileResponse(_path(layout, digest), media_type="application/octet-stream", headers=headers)


def _path(layout: Path, digest: str) -> Path:
    return layout / "blobs" / digest.replace(":", "/")


def _unknown(code: str) -> Response:
    return JSONResponse({"errors": [{"code": code}]}, status_code=404)
