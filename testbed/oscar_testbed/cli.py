# SPDX-License-Identifier: Apache-2.0
"""``oscar-testbed up|down|put|demo``: the embedded platform, with or without Airflow, and the demo, from a shell.

``up`` stays in the foreground until it is interrupted, unless it is told to ``--detach``. It writes ``environment``
(for a shell's ``.``) and ``connections.json`` into its directory, both readable by their owner only, and removes them
when it ends. ``put`` drops a file into the S3 or dCache of a platform that is up.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from oscar_testbed import background
from oscar_testbed.errors import MissingPrerequisite, PlatformError
from oscar_testbed.fakes.oscar.releases import NEWEST_OSCAR, Release
from oscar_testbed.images import LocalImage

#: Exit code where the machine lacks something.
CANNOT = 3
_DEMO_NEEDS = ("airflow_provider_oscar", "h5py", "matplotlib", "numpy", "onnx", "onnxruntime")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code: 0 only if all that was asked for is done, or proven."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    options = parser().parse_args(words)
    options.words = words
    try:
        return int(options.run(options))
    except MissingPrerequisite as lack:
        print(f"cannot: {lack}", file=sys.stderr)
        return CANNOT
    except KeyboardInterrupt:
        print("interrupted; everything that was started has been stopped", file=sys.stderr)
        return 130
    except Exception as error:
        if not _expected(error):
            raise
        print(f"error: {error}", file=sys.stderr)
        return 1


def up(options: argparse.Namespace) -> int:
    """Start the platform, with --airflow also Airflow and the demo's DAGs."""
    directory: Path = options.directory.absolute()
    images = {each.name: each for each in options.image}
    if options.dags and not options.airflow:
        raise PlatformError("--dags says what Airflow reads, and no Airflow is asked for; add --airflow")
    if options.airflow:
        _require_provider()
    if options.detach:
        words = [word for word in options.words if word != "--detach"]
        return background.detach([sys.executable, "-m", "oscar_testbed", *words], directory)
    if options.airflow:
        from oscar_testbed.demo.runner import serve

        own = options.dags.absolute() if options.dags else None
        return serve(
            directory,
            s3=options.s3,
            slurm=options.slurm,
            images=images,
            own_dags=own,
            oscar_version=options.oscar_version,
        )
    return background.serve_platform(
        directory, s3=options.s3, slurm=options.slurm, images=images, oscar_version=options.oscar_version
    )


def down(options: argparse.Namespace) -> int:
    """Stop what `up` started in a directory, also after a crash; nothing there is fine."""
    print(background.stop(options.directory.absolute()), file=sys.stderr)
    return 0


def put(options: argparse.Namespace) -> int:
    """Copy a file into the S3 or dCache of a platform that is up; a bucket that is missing is made."""
    from oscar_testbed.drop import drop

    print(drop(options.directory.absolute(), options.file, options.uri))
    return 0


def demo(options: argparse.Namespace) -> int:
    """Run the 3DGAN pipeline end to end, write a report, and stop everything."""
    _require_provider()
    directory, report = options.directory.absolute(), options.report.absolute()
    if options.backend == "system":
        from oscar_testbed.demo.system import run_on_stack

        return run_on_stack(directory, report, stack=options.stack, patience=60 * options.patience)
    from oscar_testbed.demo.runner import run_demo

    return run_demo(directory, report, patience=60 * options.patience)


def _require_provider() -> None:
    missing = [name for name in _DEMO_NEEDS if find_spec(name) is None]
    if missing:
        raise MissingPrerequisite(
            f"the demo needs {', '.join(missing)}; pip install 'airflow-provider-oscar[testbed]'", part="demo"
        )


def _expected(error: Exception) -> bool:
    """Whether an error explains itself; the provider's do as well, where it is installed."""
    if isinstance(error, PlatformError):
        return True
    module = sys.modules.get("airflow_provider_oscar.core.errors")
    return module is not None and isinstance(error, module.OscarProviderError)


def _image(text: str) -> LocalImage:
    name, separator, path = text.partition("=")
    if not name or not separator:
        raise argparse.ArgumentTypeError("expected NAME=DIRECTORY[:DIRECTORY...]")
    return LocalImage(name, path=[Path(each).resolve() for each in path.split(os.pathsep) if each])


def _release(text: str) -> str:
    try:
        Release.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text if text.startswith("v") else f"v{text}"


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser; :func:`main` runs what it reads."""
    made = argparse.ArgumentParser(prog="oscar-testbed", description=__doc__)
    commands = made.add_subparsers(required=True, metavar="up|down|put|demo")
    for name, run in (("up", up), ("down", down), ("put", put), ("demo", demo)):
        text = (run.__doc__ or "").splitlines()[0]
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(run=run)
        place = Path(".demo/run") if name == "demo" else Path(".platform")
        command.add_argument(
            "--directory", type=Path, default=place, help="everything is written below it (default: %(default)s)"
        )
    command = commands.choices["up"]
    command.add_argument("--airflow", action="store_true", help="start Airflow with the demo's DAGs as well")
    command.add_argument(
        "--dags",
        type=Path,
        metavar="DIRECTORY",
        help="with --airflow: DAG files of your own as well; made if it is not there, and kept",
    )
    command.add_argument("--detach", action="store_true", help="return once everything answers, and leave it running")
    command.add_argument("--s3", choices=["auto", "seaweedfs", "moto"], default="auto", help="S3 server")
    command.add_argument("--slurm", choices=["auto", "real", "builtin"], default="auto", help="batch system")
    command.add_argument(
        "--oscar-version",
        type=_release,
        default=NEWEST_OSCAR,
        metavar="VERSION",
        help="the release that OSCAR behaves like, 3.3 or later (default: %(default)s)",
    )
    command.add_argument(
        "--image",
        type=_image,
        action="append",
        default=[],
        metavar="NAME=DIRECTORY[:DIRECTORY...]",
        help="directories put before PATH when a job asks for this image",
    )
    command = commands.choices["put"]
    command.add_argument("file", type=Path, metavar="FILE")
    command.add_argument(
        "uri", metavar="URI", help="s3://bucket/key or dcache:///path; one that ends with / takes the file's name"
    )
    command = commands.choices["demo"]
    command.add_argument(
        "--report", type=Path, default=Path("demo-report"), help="where report.html goes (default: %(default)s)"
    )
    command.add_argument(
        "--patience",
        type=float,
        default=10.0,
        metavar="MINUTES",
        help="give up when no run has changed its state for so long (default: %(default)g)",
    )
    command.add_argument(
        "--backend",
        choices=["embedded", "system"],
        default="embedded",
        help="system: real Kubernetes, SLURM and Apptainer; needs oscar-testbed[real] (default: %(default)s)",
    )
    command.add_argument("--stack", type=Path, default=None, help="with --backend system: directory of the stack")
    return made
