# SPDX-License-Identifier: Apache-2.0
"""``python -m tests.fuzz [--seconds N] [TARGET …]``: fuzz each parser for a while, in a process of its own.

Exits 1 if one broke its word, and keeps the input that did it. New inputs go to a temporary corpus that starts from
the seeds, so that a run is bounded in time and leaves nothing behind; ``--corpus`` (``FUZZ_CORPUS``) keeps them in a
directory outside the tree and goes on from there.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

_ROOT = Path(__file__).parents[2]
_INPUT_BYTES = 8192
_MEMORY_MB = 2048
#: Seconds one input may take; with inputs this small, more means that the parser is not linear.
_SLOWEST = 5
_FOUND = Path(".fuzz")


def fuzz_one(name: str, arguments: list[str]) -> None:
    """Run libFuzzer on one target in this process; it does not return. Nothing of ours may be imported before."""
    import atheris

    with atheris.instrument_imports(include=["airflow_provider_oscar"]):
        from tests.fuzz.targets import TARGETS
    atheris.Setup([sys.argv[0], *arguments], TARGETS[name])
    atheris.Fuzz()


def fuzz(name: str, seconds: int, kept: str = "") -> bool:
    """Fuzz one target in a process of its own; whether it kept its word.

    :param kept: directory whose corpus is gone on with; empty for a temporary one.
    """
    from tests.fuzz.seeds import SEEDS

    with tempfile.TemporaryDirectory() as temporary:
        corpus = Path(kept, name) if kept else Path(temporary)
        corpus.mkdir(parents=True, exist_ok=True)
        for number, seed in enumerate(SEEDS[name]):
            (corpus / f"seed-{number}").write_bytes(seed)
        limits = [f"-max_total_time={seconds}", f"-max_len={_INPUT_BYTES}", f"-timeout={_SLOWEST}"]
        limits += [f"-rss_limit_mb={_MEMORY_MB}", f"-artifact_prefix={_FOUND}/{name}-", "-print_final_stats=1"]
        done = subprocess.run(
            [sys.executable, "-m", "tests.fuzz", "--inside", name, *limits, str(corpus)],
            cwd=_ROOT, capture_output=True, text=True, errors="replace", timeout=seconds + 120, check=False,
        )  # fmt: skip
    tried = [line.rpartition(" ")[2] for line in done.stderr.splitlines() if "number_of_executed_units" in line]
    if done.returncode == 0 and tried:
        print(f"{name:16} {int(tried[-1]):>10} inputs in {seconds} s, all well", flush=True)
        return True
    print(f"{name:16} FAILED; the input is in {_FOUND}\n{done.stdout[-2000:]}{done.stderr[-2000:]}", flush=True)
    return False


def main() -> int:
    """Fuzz what was asked for."""
    if sys.argv[1:2] == ["--inside"]:
        fuzz_one(sys.argv[2], sys.argv[3:])
        return 0
    from tests.fuzz.seeds import SEEDS

    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"any of {', '.join(SEEDS)}; all if none is named")
    environment = os.environ.get
    parser.add_argument("--seconds", type=int, default=int(environment("FUZZ_SECONDS") or 20), help="for each target")
    parser.add_argument("--corpus", default=environment("FUZZ_CORPUS") or "", help="directory that keeps new inputs")
    chosen = parser.parse_args()
    if unknown := set(chosen.targets) - set(SEEDS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    (_ROOT / _FOUND).mkdir(exist_ok=True)
    kept = [fuzz(name, chosen.seconds, chosen.corpus) for name in chosen.targets or SEEDS]
    return 0 if all(kept) else 1


if __name__ == "__main__":
    sys.exit(main())
