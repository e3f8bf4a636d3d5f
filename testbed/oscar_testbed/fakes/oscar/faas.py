# SPDX-License-Identifier: Apache-2.0
"""Our own program to the contract of OSCAR's FaaS Supervisor: event in, input file, script, outputs out.

It runs inside a job, as OSCAR starts it (``echo $EVENT | supervisor``), and is faithful where upstream
surprises: the script's exit code is ignored, missing credentials mean that nothing is transferred, and a
body that is neither JSON nor base64 is a crash. ``SUPERVISOR_STRICT=1`` passes the script's code on.
Different from :mod:`airflow_provider_oscar.supervisor`, which is what this provider sends along with a job.
What it has not of the real one is listed in ``docs/conformance.md``.

A program of its own: it imports nothing of the package, and boto3 only for S3.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import logging
import os
import subprocess
import sys
import tempfile
import urllib.error
import urllib.parse
import urllib.request
import uuid
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

log = logging.getLogger("supervisor")

_SOURCES = {"aws:s3": "s3", "minio:s3": "minio"}


class SupervisorError(Exception):
    """Ends the program with exit code 1 and one line, as upstream's ``*Error`` classes do."""


@dataclass(frozen=True)
class Event:
    """What came in, as far as it was understood."""

    kind: str
    raw: Any
    provider_id: str = "default"
    bucket: str = ""
    key: str = ""
    time: str = ""

    @property
    def file_name(self) -> str:
        """Name of the input file."""
        return os.path.basename(self.key)


def mounted(path: str) -> Path:
    """A path of the container; below ``CONTAINER_SANDBOX_MOUNT_POINT`` in a process container."""
    return Path(os.environ.get("CONTAINER_SANDBOX_MOUNT_POINT", "") + path)


# ---- configuration ----------------------------------------------------------------------------------------


def load_configuration() -> dict[str, Any]:
    """The service definition, from the mounted file or from ``FUNCTION_CONFIG``; empty when there is neither."""
    path = mounted("/oscar/config/function_config.yaml")
    text = ""
    if path.is_file():
        text = path.read_text()
    elif os.environ.get("FUNCTION_CONFIG"):
        text = base64.b64decode(os.environ["FUNCTION_CONFIG"]).decode()
    if not text:
        return {}
    try:
        return dict(json.loads(text))
    except ValueError:
        import yaml

        return dict(yaml.safe_load(text) or {})


def credentials(config: Mapping[str, Any], kind: str, provider_id: str) -> dict[str, Any] | None:
    """Settings of a storage provider; None means that nothing is transferred, which upstream does in silence."""
    settings = ((config.get("storage_providers") or {}).get(kind) or {}).get(provider_id)
    if kind == "minio" and provider_id == "default":
        place = mounted("/var/run/secrets/providers/minio.default")
        if not place.is_dir():
            return None
        keys = {"access_key": (place / "accessKey").read_text(), "secret_key": (place / "secretKey").read_text()}
        return {**(settings or {}), **keys}
    if settings is None:
        return {} if (kind, provider_id) == ("s3", "default") else None
    wanted = ("hostname", "login", "password") if kind == "webdav" else ("access_key", "secret_key")
    missing = [name for name in wanted if not settings.get(name)]
    if missing:
        raise SupervisorError(f"the storage provider {kind}.{provider_id} lacks {', '.join(missing)}")
    return dict(settings)


# ---- events -----------------------------------------------------------------------------------------------


def parse_event(raw: Any, config: Mapping[str, Any], provider_id: str = "default") -> Event:
    """Recognise an event, in upstream's order of tests."""
    body = raw
    if isinstance(raw, str):
        try:
            body = json.loads(raw)
        except ValueError:
            return Event("unknown", raw)
    if "httpMethod" in body:
        for name, value in (body.get("queryStringParameters") or {}).items():
            os.environ[f"CONT_VAR_{name}"] = str(value)
        return parse_event(body.get("body") or "", config, provider_id)
    if "event" in body and "subscription" in body:
        return _dcache_event(body, config)
    if "event_type" in body and "scope" in body["payload"]:
        raise SupervisorError("Rucio events are not supported by the embedded platform")
    if "event" in body:
        return parse_event(body["event"], config, body.get("storage_provider", provider_id))
    records = body.get("Records")
    if records and records[0].get("eventSource") in _SOURCES:
        return _storage_event(body, records[0], provider_id)
    return Event("unknown", body)


def _dcache_event(body: Any, config: Mapping[str, Any]) -> Event:
    name = body["event"]["name"]
    inputs = config.get("input") or []
    folder = next((one["path"] for one in inputs if one.get("storage_provider") == "webdav.dcache"), "")
    return Event("webdav", body, provider_id="dcache", key=os.path.join(folder, name))


def _storage_event(body: Any, record: Any, provider_id: str) -> Event:
    s3 = record["s3"]
    # Upstream reads the ARN as well and fails without it.
    bucket, _ = s3["bucket"]["name"], s3["bucket"]["arn"]
    key = urllib.parse.unquote_plus(s3["object"]["key"])
    kind = _SOURCES[record["eventSource"]]
    return Event(kind, body, provider_id=provider_id, bucket=bucket, key=key, time=record["eventTime"])


# ---- storage ----------------------------------------------------------------------------------------------


def s3_client(settings: Mapping[str, Any], kind: str) -> Any:
    """A boto3 client for an S3 or MinIO provider."""
    import boto3
    from botocore.config import Config

    endpoint = settings.get("endpoint", "http://minio-service.minio:9000") if kind == "minio" else None
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id=settings.get("access_key"),
        aws_secret_access_key=settings.get("secret_key"),
        region_name=settings.get("region") or None,
        verify=settings.get("verify", True),
        config=Config(s3={"addressing_style": "path"} if kind == "minio" else {}, retries={"max_attempts": 3}),
    )


def webdav_request(settings: Mapping[str, Any], method: str, path: str, data: bytes | None = None) -> bytes:
    """One WebDAV request with basic auth; https, except for the hosts the platform names."""
    host = settings["hostname"]
    plain = host in os.environ.get("SUPERVISOR_PLAIN_HTTP_HOSTS", "").split()
    url = f"{'http' if plain else 'https'}://{host}/{urllib.parse.quote(path.lstrip('/'))}"
    word = base64.b64encode(f"{settings['login']}:{settings['password']}".encode()).decode()
    request = urllib.request.Request(url, data=data, method=method, headers={"Authorization": f"Basic {word}"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return bytes(answer.read())


def stage_in(event: Event, config: Mapping[str, Any], directory: Path) -> Path | None:
    """Fetch the input file, or save the event itself; None when the service wants no stage-in."""
    if config.get("file_stage_in") is True:
        return None
    settings = None if event.kind == "unknown" else credentials(config, event.kind, event.provider_id)
    if settings is None:
        log.info("Found 'LOCAL' input provider")
        return save_event(event, directory)
    log.info("Found '%s' input provider", event.kind.upper())
    path = directory / event.file_name
    if event.kind == "webdav":
        path.write_bytes(webdav_request(settings, "GET", event.key))
    else:
        s3_client(settings, event.kind).download_file(event.bucket, event.key, str(path))
    return path


def save_event(event: Event, directory: Path) -> Path:
    """Write the event to a file: JSON as it is, anything else decoded from base64."""
    path = directory / f"event-file-{uuid.uuid4()}"
    if isinstance(event.raw, dict):
        path.write_text(json.dumps(event.raw))
    else:
        path.write_bytes(base64.b64decode(event.raw))
    return path


def output_files(directory: Path, entry: Mapping[str, Any]) -> Iterator[tuple[Path, str]]:
    """Files an output entry wants, with their names relative to the output directory."""
    for path in sorted(directory.rglob("*")):
        name = path.relative_to(directory).as_posix()
        prefixes, suffixes = entry.get("prefix") or [""], entry.get("suffix") or [""]
        if path.is_file() and name.startswith(tuple(prefixes)) and name.endswith(tuple(suffixes)):
            yield path, name


def stage_out(config: Mapping[str, Any], directory: Path) -> None:
    """Send every wanted file to every output entry."""
    for entry in config.get("output") or []:
        kind, _, provider_id = entry["storage_provider"].partition(".")
        kind = kind.lower()
        settings = credentials(config, kind, provider_id or "default")
        if settings is None:
            log.info("Found 'LOCAL' output provider")
            continue
        client = s3_client(settings, kind) if kind in {"s3", "minio"} else None
        for path, name in output_files(directory, entry):
            log.info("Uploading file '%s'", name)
            if client is not None:
                bucket, _, rest = entry["path"].strip("/").partition("/")
                client.upload_file(str(path), bucket, f"{rest}/{name}" if rest else name)
            elif kind == "webdav":
                _make_collection(settings, entry["path"])
                webdav_request(settings, "PUT", f"{entry['path'].rstrip('/')}/{name}", path.read_bytes())
            else:
                raise SupervisorError(f"output provider {kind!r} is not supported by the embedded platform")


def _make_collection(settings: Mapping[str, Any], path: str) -> None:
    try:
        webdav_request(settings, "MKCOL", path)
    except urllib.error.HTTPError as error:
        if error.code not in {405, 409}:
            raise


# ---- running ----------------------------------------------------------------------------------------------


def script_path(directory: Path) -> Path | None:
    """The user's script, from ``SCRIPT`` or the mounted file."""
    if os.environ.get("SCRIPT"):
        path = directory / "script.sh"
        path.write_bytes(base64.b64decode(os.environ["SCRIPT"]))
        return path
    path = mounted("/oscar/config/script.sh")
    return path if path.is_file() else None


def run_script(script: Path | None) -> tuple[int, str]:
    """Run the script with ``/bin/sh``; its exit code and everything it printed."""
    if script is None:
        log.error("No user script found")
        return 0, ""
    lines = []
    process = subprocess.Popen(["/bin/sh", str(script)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    for line in process.stdout or ():
        text = line.decode(errors="replace")
        log.debug("%s", text.rstrip("\n"))
        lines.append(text)
    # As upstream: the end of its output is the end of the script, which nobody waits for.
    code = process.wait() if os.environ.get("SUPERVISOR_STRICT") == "1" else 0
    return code, "".join(lines)


def response(event: Event, directory: Path, printed: str) -> str:
    """What goes to standard output: for an unknown event the output file or a zip of them, else the script's text."""
    files = [path for path in sorted(directory.rglob("*")) if path.is_file()]
    if event.kind != "unknown" or not files:
        return printed
    if len(files) == 1:
        return base64.b64encode(files[0].read_bytes()).decode()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for path in files:
            archive.write(path, path.relative_to(directory))
    return base64.b64encode(packed.getvalue()).decode()


def supervise(text: str, config: Mapping[str, Any]) -> int:
    """Handle one event; the exit code of the program."""
    event = parse_event(text.strip(), config)
    with tempfile.TemporaryDirectory() as inputs, tempfile.TemporaryDirectory() as outputs:
        os.environ |= {"TMP_INPUT_DIR": inputs, "TMP_OUTPUT_DIR": outputs}
        path = stage_in(event, config, Path(inputs))
        if path is not None:
            os.environ["INPUT_FILE_PATH"] = str(path)
            log.info("INPUT_FILE_PATH variable set to '%s'", path)
        if event.kind in {"s3", "minio"}:
            os.environ |= {
                "STORAGE_OBJECT_KEY": event.key,
                "EVENT_TIME": event.time,
                "EVENT": json.dumps(event.raw),
            }
        code, printed = run_script(script_path(Path(inputs)))
        stage_out(config, Path(outputs))
        log.info("Creating response")
        sys.stdout.write(response(event, Path(outputs), printed) + "\n")
    return code if os.environ.get("SUPERVISOR_STRICT") == "1" else 0


def main() -> int:
    """Read the event from standard input and handle it."""
    config = load_configuration()
    level = os.environ.get("LOG_LEVEL") or str(config.get("log_level") or "INFO")
    logging.basicConfig(
        stream=sys.stderr,
        level=getattr(logging, level.upper(), logging.INFO),
        format="%(asctime)s - supervisor - %(levelname)s - %(message)s",
    )
    logging.getLogger("botocore").setLevel(logging.WARNING)
    try:
        return supervise(sys.stdin.buffer.read().decode(errors="surrogateescape"), config)
    except SupervisorError as error:
        log.error("%s", error)
    except (OSError, KeyError, TypeError, AttributeError, ValueError, binascii.Error):
        log.exception("the event could not be handled")
    return 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Exception:  # noqa: BLE001 - botocore's errors, whose module is imported only when it is needed
        log.exception("the event could not be handled")
        sys.exit(1)
