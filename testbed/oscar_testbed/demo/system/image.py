# SPDX-License-Identifier: Apache-2.0
"""The inference image, made on this machine: Debian's Python, the wheels of ``requirements.txt`` and the payload.

It holds what ``docker/threedgan/Dockerfile`` puts into it, at the same places; or, by :func:`itwinai_image`, itwinai
and its use case behind the same command. One root file system serves Apptainer as a directory and a node's containerd
as an OCI layout.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from oscar_testbed.real.base import cache_directory, run
from oscar_testbed.real.images import tools_root
from oscar_testbed.real.oci import write_layout

ENVIRONMENT = {
    "PATH": "/opt/threedgan/bin:/usr/local/bin:/usr/bin:/bin",
    "MPLCONFIGDIR": "/opt/threedgan/matplotlib",
    "ORT_DISABLE_TELEMETRY": "1",
    "PYTHONUNBUFFERED": "1",
}
_COMMAND = ("threedgan", "infer")
_ITWINAI = "opt/itwinai"
#: What the DAG's command is with itwinai. A file of fewer showers than a batch has gives no result, and the demo's have
#: as few as two.
PIPELINE = f"""\
#!/bin/sh
if [ "$1" != infer ]; then echo "this image has the command 'infer' alone, not '$1'" >&2; exit 64; fi
cd "$(mktemp -d)" || exit 73
export HOME="$PWD" MPLCONFIGDIR="$PWD"
exec python3 -c 'from itwinai.cli import app; app()' exec-pipeline \\
  --config-path /{_ITWINAI}/3dgan +pipe_key=inference_pipeline \\
  "dataset_location=$TMP_INPUT_DIR" inference_model_uri=/{_ITWINAI}/3dgan/3dgan-inference.pth \\
  "inference_results_location=$TMP_OUTPUT_DIR/showers" aggregate_predictions=true \\
  batch_size=1 max_dataset_size=5000 num_workers_dataloader=0 \\
  hw_accelerators=cpu distributed_strategy=auto devices=auto logs_dir=logs checkpoints_path=checkpoints
"""
_LIBRARIES = "usr/local/lib/python3.11/dist-packages"
#: Of Debian 12, whose Python the image has.
_PLATFORM = ("--python-version", "3.11", "--python-platform", "x86_64-manylinux_2_36")
#: An image that was not used for so long belongs to a state of the payload that is gone.
_KEPT_SECONDS = 3 * 86400.0
_FINISH = f"""
set -e
python3 -m compileall -q /{_LIBRARIES} /opt/threedgan
python3 -c 'import matplotlib.font_manager'
"""


@dataclass(frozen=True)
class InferenceImage:
    """Where the image lies in the cache.

    :param root: its root file system.
    :param layout: the same as an OCI layout.
    """

    root: Path
    layout: Path


def inference_image(payload: Path, progress: Callable[[str], None] = lambda text: None) -> InferenceImage:
    """Return the image of the payload, made when its like is not in the cache.

    :param payload: ``bin``, ``threedgan`` and ``requirements.txt``.
    :param progress: called with a sentence when it has to be made.
    :raises MissingPrerequisite: naming the tool to install.
    """
    base = tools_root(progress)

    def fill(root: Path) -> None:
        _fill(root, base, payload)

    return _made(f"threedgan-{_key(base, payload)}", fill, ENVIRONMENT, progress)


def itwinai_image(
    packages: Path, use_case: Path, progress: Callable[[str], None] = lambda text: None
) -> InferenceImage:
    """Return an image whose ``threedgan infer`` is itwinai's own inference pipeline, on CPUs.

    It takes seven gigabytes of the cache: its root file system shares its files with the environment.

    :param packages: folder with itwinai and all it needs, in the cache directory.
    :param use_case: code of its use case ``3dgan``, with a model made by it.
    :param progress: called with a sentence when it has to be made.
    :raises MissingPrerequisite: naming the tool to install.
    """
    base = tools_root(progress)
    code = sorted(path for path in use_case.iterdir() if path.suffix in {".py", ".yaml", ".pth"})
    environment = {**ENVIRONMENT, "PYTHONPATH": f"/{_ITWINAI}/packages"}
    # The pipeline logs into files, which newer versions of MLflow refuse unless they are told.
    environment |= {"MLFLOW_ALLOW_FILE_STORE": "true", "HYDRA_FULL_ERROR": "1"}

    def fill(root: Path) -> None:
        run(["cp", "--archive", str(base), str(root)], timeout=300)
        home = root / _ITWINAI
        (home / "3dgan").mkdir(parents=True)
        run(["cp", "--archive", "--link", str(packages), str(home / "packages")], timeout=900)
        for path in code:
            shutil.copy(path, home / "3dgan")
        program = root / "opt" / "threedgan" / "bin" / "threedgan"
        program.parent.mkdir(parents=True)
        program.write_text(PIPELINE)
        program.chmod(0o755)
        _write_variables(root / ".singularity.d" / "env", environment)

    digest = sha256(f"{base.name} {packages}".encode())
    for path in (Path(__file__), *code):
        digest.update(path.read_bytes())
    return _made(f"itwinai-{digest.hexdigest()[:16]}", fill, environment, progress)


def _made(
    name: str, fill: Callable[[Path], None], environment: Mapping[str, str], progress: Callable[[str], None]
) -> InferenceImage:
    """Return the image of this name, made when it is not in the cache."""
    target = cache_directory() / "images" / name
    if not target.exists():
        progress("making the inference image from Debian's packages and wheels, once")
        part = Path(tempfile.mkdtemp(prefix=".threedgan-", dir=target.parent))
        try:
            fill(part / "root")
            write_layout(part / "root", part / "layout", environment=environment, command=_COMMAND)
            part.rename(target)
        finally:
            shutil.rmtree(part, ignore_errors=True)
        _prune(target.parent)
    os.utime(target)
    return InferenceImage(target / "root", target / "layout")


def _prune(folder: Path) -> None:
    for path in (*folder.glob("threedgan-*"), *folder.glob("itwinai-*")):
        if path.stat().st_mtime < time.time() - _KEPT_SECONDS:
            shutil.rmtree(path, ignore_errors=True)


def _fill(root: Path, base: Path, payload: Path) -> None:
    run(["cp", "--archive", str(base), str(root)], timeout=300)
    uv = Path(sys.executable).with_name("uv")
    words = ["--quiet", "--link-mode", "copy", "--only-binary", ":all:", *_PLATFORM]
    words += ["--target", str(root / _LIBRARIES), "--requirement", str(payload / "requirements.txt")]
    run([str(uv), "pip", "install", *words], timeout=600)
    home = root / "opt" / "threedgan"
    for path in _files(payload):
        copied = home / path.relative_to(payload)
        copied.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copied)
    _write_variables(root / ".singularity.d" / "env", ENVIRONMENT)
    inside = ["unshare", "--map-root-user", "chroot", str(root), "/usr/bin/env", "-i", "HOME=/root"]
    inside += [f"{name}={value}" for name, value in ENVIRONMENT.items()]
    run(["nice", "-n", "19", *inside, "/bin/sh", "-c", _FINISH], timeout=600)
    run(["chmod", "-R", "a+rX", str(home)])


def _write_variables(folder: Path, environment: Mapping[str, str]) -> None:
    """Write the variables where Apptainer looks for them, since a directory has no configuration as an archive has.

    The names are those in images Apptainer makes from others; a job's own variables come after the second one.
    """
    folder.mkdir(parents=True)
    text = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in environment.items())
    (folder / "10-docker2singularity.sh").write_text(text)
    (folder / "99-base.sh").touch()


def _files(payload: Path) -> Iterable[Path]:
    """The payload as the Dockerfile copies it."""
    found = [path for name in ("bin", "threedgan") for path in (payload / name).rglob("*")]
    return sorted(path for path in found if path.is_file() and "__pycache__" not in path.parts)


def _key(base: Path, payload: Path) -> str:
    """Digest of all that the image is made of, this recipe included."""
    digest = sha256(base.name.encode())
    for path in (Path(__file__), payload / "requirements.txt", *_files(payload)):
        digest.update(f"{path.name} {path.stat().st_mode & 0o111} {sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()[:16]
