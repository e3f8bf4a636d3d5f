# SPDX-License-Identifier: Apache-2.0
"""The command line: ``threedgan infer``, ``make-input`` and ``convert-checkpoint``.

Arguments become values, errors become one line on stderr and an exit code of ``sysexits.h``. What a subcommand needs
is imported when it runs.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from threedgan import __version__
from threedgan.errors import OutputError, PayloadError, SettingsError, first_line
from threedgan.settings import (
    BATCH_SIZE,
    ENGINES,
    NOISE_SEED,
    PRECISIONS,
    PROVIDERS,
    Settings,
    choose_provider,
    number,
    switched_on,
    thread_count,
)

log = logging.getLogger("threedgan")


def build_parser() -> argparse.ArgumentParser:
    """Return the parser with all subcommands."""
    parser = argparse.ArgumentParser(prog="threedgan", description="3DGAN calorimeter shower inference")
    parser.add_argument("--version", action="version", version=f"threedgan {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    infer = commands.add_parser("infer", help="generate one shower per shower of HDF5 files")
    infer.add_argument("--input", type=Path, help="HDF5 file, or a directory of such (env INPUT_FILE_PATH)")
    infer.add_argument("--output", type=Path, help="directory for the results (env TMP_OUTPUT_DIR)")
    infer.add_argument("--batch-size", type=int, help=f"showers per network call (env BATCH_SIZE; {BATCH_SIZE})")
    infer.add_argument("--provider", choices=PROVIDERS, help="where to compute (env ACCELERATOR=cpu|gpu; auto)")
    infer.add_argument("--engine", choices=ENGINES, help="what computes (env THREEDGAN_ENGINE; the faster one)")
    infer.add_argument(
        "--precision", choices=PRECISIONS, help="bfloat16 where it holds (env THREEDGAN_PRECISION; float32)"
    )
    infer.add_argument("--weights", type=Path, help=".npz of trained weights (env THREEDGAN_WEIGHTS; seeded ones)")
    infer.add_argument("--seed", type=int, help=f"seed of the latent noise (env THREEDGAN_SEED; {NOISE_SEED})")
    infer.add_argument("--max-showers", type=int, help="stop after so many (env MAX_DATA_SAMPLES; all)")
    infer.add_argument("--threads", type=int, help="CPU threads (env THREEDGAN_THREADS; what is granted, else 1)")
    infer.add_argument(
        "--no-picture",
        action="store_true",
        help="leave the picture out, which takes a second (env THREEDGAN_PICTURE=false)",
    )
    infer.set_defaults(run=_infer)

    make = commands.add_parser("make-input", help="write a synthetic input file of the real format")
    make.add_argument("--showers", type=int, default=8)
    make.add_argument("--seed", type=int, default=0)
    make.add_argument("--output", type=Path, required=True)
    make.set_defaults(run=_make_input)

    convert = commands.add_parser("convert-checkpoint", help="turn generator_weights.pth into .npz weights")
    convert.add_argument("checkpoint", type=Path)
    convert.add_argument("--output", type=Path, required=True)
    convert.set_defaults(run=_convert)
    return parser


def read_settings(options: argparse.Namespace, environment: Mapping[str, str]) -> Settings:
    """Merge options and environment; an option wins, an empty variable counts as unset.

    :raises SettingsError: if something needed is missing or a value is unusable.
    """

    def path(value: Path | None, variable: str) -> Path | None:
        text = environment.get(variable, "")
        return value if value is not None else Path(text) if text else None

    def whole(value: int | None, variable: str, default: int) -> int:
        if value is not None:
            return value
        found = number(environment, variable)
        return default if found is None else found

    source, target = path(options.input, "INPUT_FILE_PATH"), path(options.output, "TMP_OUTPUT_DIR")
    if source is None or target is None:
        raise SettingsError("give --input and --output, or set INPUT_FILE_PATH and TMP_OUTPUT_DIR")
    return Settings(
        input=source,
        output=target,
        batch_size=whole(options.batch_size, "BATCH_SIZE", BATCH_SIZE),
        provider=options.provider or choose_provider(environment),
        engine=options.engine or environment.get("THREEDGAN_ENGINE", "").strip().lower() or "auto",
        precision=options.precision or environment.get("THREEDGAN_PRECISION", "").strip().lower() or "float32",
        weights=path(options.weights, "THREEDGAN_WEIGHTS"),
        seed=whole(options.seed, "THREEDGAN_SEED", NOISE_SEED),
        limit=options.max_showers if options.max_showers is not None else number(environment, "MAX_DATA_SAMPLES"),
        threads=options.threads if options.threads is not None else thread_count(environment),
        picture=not options.no_picture and switched_on(environment, "THREEDGAN_PICTURE"),
        metrics_file=path(None, "SUPERVISOR_METRICS_FILE"),
    )


def _infer(options: argparse.Namespace) -> None:
    answers = os.environ.get("SUPERVISOR_ANSWERS", "")
    if answers and options.input is None:
        from threedgan.worker import serve

        with open(answers, "w", encoding="ascii") as file:
            count = serve(lambda variables: read_settings(options, variables), os.environ, sys.stdin, file)
        log.info("no more input files after %d", count)
        return
    settings = read_settings(options, os.environ)
    if settings.input.is_dir():
        from threedgan.many import infer_many

        whole = infer_many(settings)
        log.info("done: %(showers)d showers of %(objects)d input files on %(device)s", whole)
        return
    from threedgan.inference import infer

    metrics = infer(settings)
    log.info(
        "done: %d showers, %.3f s per shower on %s, %.1f s in all",
        metrics["showers"],
        metrics["seconds_per_shower"],
        metrics["device"],
        metrics["seconds"]["wall"],
    )


def _make_input(options: argparse.Namespace) -> None:
    from threedgan.data import write_input

    write_input(options.output, options.showers, options.seed)
    log.info("%s: %d showers", options.output, options.showers)


def _convert(options: argparse.Namespace) -> None:
    from threedgan.convert_checkpoint import convert

    try:
        weights = convert(options.checkpoint, options.output)
    except OSError as error:
        raise OutputError(f"{options.output}: cannot be written: {first_line(error)}") from error
    log.info("%s: %d parameters, sha256 %s", options.output, weights.parameter_count, weights.sha256)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and return the exit code."""
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="threedgan: %(message)s")
    log.setLevel(logging.INFO)
    options = build_parser().parse_args(arguments)
    try:
        options.run(options)
    except PayloadError as error:
        log.error("%s", " ".join(str(error).splitlines()))
        return error.exit_code
    except ModuleNotFoundError as error:
        log.error(
            "%s is not installed for %s; threedgan needs what its requirements.txt names", error.name, sys.executable
        )
        return SettingsError.exit_code
    return os.EX_OK
