# SPDX-License-Identifier: Apache-2.0
"""Make a release of the provider and its test bed, and check it: metadata, links, contents, reproducibility, bill of
materials, and the path of somebody who has nothing but the wheels.

The sources do not know where they are published, so ``--project-url`` says it: links of the README become absolute and
the metadata gets its project URLs, in a copy of what is committed. The result is in ``dist/``.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from email.parser import HeaderParser
from pathlib import Path

ROOT = Path(__file__).parents[1]
#: What people expect of a source distribution, and what of a wheel.
SDIST = ("tests/conftest.py", "docs/index.md", "dags/count_words.py", "CHANGELOG.md", "deploy/compose.yaml", "Makefile")
WHEEL = (
    "airflow_provider_oscar/py.typed",
    "airflow_provider_oscar/core/object-event.schema.json",
    "airflow_provider_oscar/jobs/manifest.schema.json",
    "airflow_provider_oscar/plugins/ui/static/app.js",
    "airflow_provider_oscar/example_dags/count_words.py",
)
_LINK = re.compile(r"(\]\()(?!https?://|#|mailto:)([^)\s]+)(\))")


def main() -> int:
    """Build twice, check, write; 0 if nothing is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--project-url", required=True, help="where the repository is, such as https://host/owner/name")
    parser.add_argument("--docs-url", default="", help="where the built documentation is; its folder by default")
    parser.add_argument("--no-demo", action="store_true", help="install the wheels, but do not run the demo from them")
    given = parser.parse_args()
    if not re.fullmatch(r"https://[^/\s]+(/[^/\s]+)+", given.project_url.rstrip("/")):
        parser.error(f"{given.project_url!r} is not a valid address of a repository; expected https://host/owner/name")
    with tempfile.TemporaryDirectory() as scratch:
        first = build(Path(scratch, "one"), given.project_url.rstrip("/"), given.docs_url)
        second = build(Path(scratch, "two"), given.project_url.rstrip("/"), given.docs_url)
        problems = [*compare(first, second), *contents(first), *metadata(first)]
        dist = ROOT / "dist"
        shutil.rmtree(dist, ignore_errors=True)
        shutil.copytree(first, dist)
    for name in sorted(path.name for path in dist.iterdir()):
        print(f"{hashlib.sha256((dist / name).read_bytes()).hexdigest()}  dist/{name}")
    run(
        sys.executable,
        "-m",
        "twine",
        "check",
        "--strict",
        *map(str, dist.glob("*.whl")),
        *map(str, dist.glob("*.tar.gz")),
    )
    lock, sbom = ROOT / "requirements" / "airflow-3.3.txt", dist / "sbom.cdx.json"
    run(sys.executable, "-m", "cyclonedx_py", "requirements", str(lock), "--output-reproducible", "-o", str(sbom))
    problems += from_wheels(dist, lock, demo=not given.no_demo)
    for problem in problems:
        print(f"FAILED: {problem}", file=sys.stderr)
    return 1 if problems else 0


def from_wheels(dist: Path, lock: Path, *, demo: bool) -> list[str]:
    """Return what fails for whoever installs the wheels and has no checkout; prints how long each step took.

    :param dist: with the wheels.
    :param lock: versions that are installed beside them.
    :param demo: run the demo as well, which takes some minutes.
    """
    provider, testbed = (next(dist.glob(f"{name}-*.whl")) for name in ("airflow_provider_oscar", "oscar_testbed"))
    with tempfile.TemporaryDirectory() as scratch:
        venv, home = Path(scratch, "venv"), Path(scratch, "home")
        home.mkdir()
        kept = ("PIP_", "HTTP", "NO_PROXY", "SSL_", "REQUESTS_", "LANG", "http", "no_proxy")
        environment = {name: value for name, value in os.environ.items() if name.startswith(kept)}
        environment |= {"HOME": str(home), "AIRFLOW_HOME": str(home / "airflow"), "PATH": f"{venv}/bin:{os.defpath}"}
        steps = [
            ("make an environment", [sys.executable, "-m", "venv", str(venv)]),
            ("install", [f"{venv}/bin/pip", "install", "-q", "-c", str(lock), f"{provider}[testbed]", str(testbed)]),
            ("airflow providers list", [f"{venv}/bin/airflow", "providers", "list", "-o", "plain"]),
            ("airflow oscar --help", [f"{venv}/bin/airflow", "oscar", "services", "apply", "--help"]),
        ]
        if demo:
            report = str(home / "report")
            steps.append(("airflow oscar demo", [f"{venv}/bin/airflow", "oscar", "demo", "--report", report]))
        for name, command in steps:
            began = time.monotonic()
            done = subprocess.run(command, env=environment, cwd=home, capture_output=True, text=True)
            print(f"{time.monotonic() - began:6.0f} s  {name}")
            if done.returncode:
                return [f"{name} fails from the wheels alone: {(done.stderr or done.stdout).strip()[-1500:]}"]
    return []


def build(where: Path, project_url: str, docs_url: str) -> Path:
    """Build wheel and source distribution from what is committed; return their directory."""
    source = where / "source"
    source.mkdir(parents=True)
    archive = subprocess.run(["git", "archive", "HEAD"], cwd=ROOT, check=True, capture_output=True).stdout
    subprocess.run(["tar", "-x"], cwd=source, input=archive, check=True)
    epoch = subprocess.run(["git", "log", "-1", "--format=%ct"], cwd=ROOT, check=True, capture_output=True, text=True)
    version = re.search(r'__version__ = "([^"]+)"', (source / "airflow_provider_oscar/__init__.py").read_text())
    assert version
    publish(source, project_url, docs_url, version[1])
    environment = {"SOURCE_DATE_EPOCH": epoch.stdout.strip()}
    for distribution in (source, source / "testbed"):
        run(sys.executable, "-m", "build", "--outdir", str(where / "dist"), str(distribution), environment=environment)
    for path in (where / "dist").glob("*.tar.gz"):
        settle(path, int(environment["SOURCE_DATE_EPOCH"]))
    return where / "dist"


def publish(source: Path, project_url: str, docs_url: str, version: str) -> None:
    """Write where it is published into the copy."""
    blob = f"{project_url}/blob/v{version}/"
    readme = source / "README.md"
    readme.write_text(_LINK.sub(lambda link: f"{link[1]}{blob}{link[2]}{link[3]}", readme.read_text()))
    urls = {
        "Documentation": docs_url or f"{blob}docs/index.md",
        "Source": project_url,
        "Changelog": f"{blob}CHANGELOG.md",
        "Issues": f"{project_url}/issues",
        "Security": f"{blob}SECURITY.md",
    }
    text = (source / "setup.cfg").read_text()
    lines = "".join(f"    {name} = {url}\n" for name, url in urls.items())
    (source / "setup.cfg").write_text(text.replace("[metadata]\n", f"[metadata]\nproject_urls =\n{lines}", 1))


def settle(path: Path, epoch: int) -> None:
    """Write a source distribution again with one time, one owner and one order, so that two builds are equal."""
    with tarfile.open(path) as old:
        members = sorted(((each, old.extractfile(each)) for each in old.getmembers()), key=lambda pair: pair[0].name)
        with (
            path.with_suffix(".new").open("wb") as raw,
            gzip.GzipFile("", "wb", mtime=epoch, fileobj=raw) as zipped,
            tarfile.open(fileobj=zipped, mode="w", format=tarfile.PAX_FORMAT) as new,
        ):
            for member, content in members:
                member.mtime, member.uid, member.gid, member.uname, member.gname = epoch, 0, 0, "", ""
                member.pax_headers = {}
                new.addfile(member, content)
    path.with_suffix(".new").replace(path)


def compare(first: Path, second: Path) -> list[str]:
    """Return which files two builds of the same sources differ in."""
    return [
        f"{path.name} differs between two builds of the same sources"
        for path in first.iterdir()
        if path.read_bytes() != (second / path.name).read_bytes()
    ]


def contents(dist: Path) -> list[str]:
    """Return what is missing in the distributions, and what has no place there."""
    (sdist,), (wheel,) = dist.glob("airflow*.tar.gz"), dist.glob("airflow*.whl")
    with tarfile.open(sdist) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    in_wheel = set(zipfile.ZipFile(wheel).namelist())
    missing = [f"the source distribution lacks {name}" for name in SDIST if name not in inside]
    missing += [f"the wheel lacks {name}" for name in WHEEL if name not in in_wheel]
    strange = {name.partition("/")[0] for name in in_wheel if not name.startswith("airflow_provider_oscar")}
    return missing + [f"the wheel has {name}, which is no part of the provider" for name in sorted(strange)]


def metadata(dist: Path) -> list[str]:
    """Return what is wrong with the metadata."""
    (wheel,) = dist.glob("airflow*.whl")
    archive = zipfile.ZipFile(wheel)
    (name,) = (each for each in archive.namelist() if each.endswith(".dist-info/METADATA"))
    found = HeaderParser().parsestr(archive.read(name).decode())
    problems = []
    if not any(url.startswith("Documentation") for url in found.get_all("Project-URL", [])):
        problems.append("the metadata has no Documentation URL, which Airflow's page of providers links to")
    relative = _LINK.findall(str(found.get_payload()))
    problems += [f"README links to {link}, which leads nowhere on the package index" for _, link, _ in relative]
    if f"[{found['Version']}]" not in (ROOT / "CHANGELOG.md").read_text():
        problems.append(f"CHANGELOG.md says nothing of version {found['Version']}")
    return problems


def run(*command: str, environment: dict[str, str] | None = None) -> None:
    """Run a command, quietly unless it fails."""
    done = subprocess.run(command, env={**os.environ, **(environment or {})}, capture_output=True, text=True)
    if done.returncode:
        print(done.stdout[-4000:], done.stderr[-4000:], file=sys.stderr)
        raise SystemExit(f"{' '.join(command[:4])} failed")


if __name__ == "__main__":
    raise SystemExit(main())
