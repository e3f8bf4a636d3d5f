# SPDX-License-Identifier: Apache-2.0
"""A day in the life: a steady stream of objects for hours, restarts at random, and the books of the world test.

``make soak``, or ``python -m tests.world.soak --hours 6 --seed 1``; on the real chain
(:mod:`tests.world.real_chain`) with ``BACKEND=system`` or ``--backend system``. The stream never stops; it is looked at
in rounds. When a round's incidents are over, every object that was uploaded until then has to have one run that ended
as it should, and a line of the report says so, with what each part of Airflow takes of the machine. The exit code is 0
if the books of every round, and at the end those of all, balance.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.world.books import Books
from tests.world.plan import draw
from tests.world.real_chain import RealChain
from tests.world.stage import World

ROUND_MINUTES = 10.0
#: Seconds from one object to the next, of both stores together.
PACE = 20.0
#: Mean seconds between two incidents: processes have time to grow, and the stream to be ordinary.
INTERVAL = 60.0
PATIENCE = 600.0


@dataclass(frozen=True)
class Usage:
    """What a process takes.

    :param megabytes: resident memory.
    :param files: open descriptors.
    :param seconds: since it started; one that was restarted starts over.
    """

    megabytes: float
    files: int
    seconds: float


@dataclass(frozen=True)
class Round:
    """One line of the report.

    :param number: from 1 on.
    :param objects: that were uploaded until its end.
    :param wrong: how many of each went wrong, of all objects until now; nothing is the aim.
    :param recovery: seconds from its last incident until every run had ended.
    :param usage: by part of Airflow, at its end.
    """

    number: int
    objects: int
    wrong: Mapping[str, int]
    recovery: float
    usage: Mapping[str, Usage]

    @property
    def balanced(self) -> bool:
        """Whether nothing went wrong."""
        return not any(self.wrong.values())

    def line(self) -> str:
        """Return the line, as JSON."""
        return json.dumps({**asdict(self), "recovery": round(self.recovery, 1)})


def usage_of(pid: int, proc: Path = Path("/proc"), now: float | None = None) -> Usage | None:
    """Return what a process takes, or None if it has ended.

    :param proc: where the kernel tells of processes.
    :param now: seconds since the machine started.
    """
    try:
        pages = int((proc / str(pid) / "statm").read_text().split()[1])
        files = len(list((proc / str(pid) / "fd").iterdir()))
        ticks = int((proc / str(pid) / "stat").read_text().rpartition(")")[2].split()[19])
        uptime = float((proc / "uptime").read_text().split()[0]) if now is None else now
    except (OSError, ValueError, IndexError):
        return None
    return Usage(round(pages * 4096 / 1e6, 1), files, round(uptime - ticks / 100, 1))


def growth(rounds: Sequence[Round], part: str) -> float | None:
    """Return megabytes per hour by which a part grew while it was not restarted, over its longest life; None if short.

    :param rounds: in their order.
    :param part: of Airflow.
    """
    longest: list[Usage] = []
    life: list[Usage] = []
    for usage in (one.usage.get(part) for one in rounds):
        if usage is None or (life and usage.seconds < life[-1].seconds):
            life = []
        if usage is not None:
            life = [*life, usage]
        longest = max(longest, life, key=len)
    if len(longest) < 3:
        return None
    # The first look is left out: it is of a process that is still filling its caches.
    first, last = longest[1], longest[-1]
    return (last.megabytes - first.megabytes) / (last.seconds - first.seconds) * 3600


def summary(rounds: Sequence[Round], books: Books) -> str:
    """Return the end of the report, for people."""
    lines = [f"{len(rounds)} rounds, {sum(one.balanced for one in rounds)} of them balanced", books.table()]
    for part in sorted({part for one in rounds for part in one.usage}):
        grown = growth(rounds, part)
        most = max(one.usage[part].megabytes for one in rounds if part in one.usage)
        told = "too short a life to tell its growth" if grown is None else f"{grown:+.1f} MB an hour"
        lines.append(f"{part:32}{most:>6.0f} MB at most, {told}")
    return "\n".join(lines)


def run(
    world: World, *, seed: int, rounds: int, seconds: float, interval: float, report: Path
) -> tuple[list[Round], Books]:
    """Play all rounds; return what is known of each, and the books of all.

    :param seed: of what goes wrong; each round draws its own from it.
    :param rounds: how many.
    :param seconds: of one.
    :param interval: mean seconds between two incidents.
    :param report: file that gets a line for each.
    """
    done = []
    world.begin()
    for number in range(1, rounds + 1):
        began = time.monotonic()
        kinds = world.kinds()
        world.endure(draw(seed * 1000 + number, seconds * 0.9, kinds=kinds, interval=interval))
        time.sleep(max(0.0, began + seconds - time.monotonic()))
        books = world.interim_books()
        found = {part: usage_of(pid) for part, pid in world.airflow.pids().items()}
        usage = {part: each for part, each in found.items() if each is not None}
        done.append(Round(number, books.objects, books.counts, books.recovery, usage))
        with report.open("a") as file:
            file.write(done[-1].line() + "\n")
        world.say(f"round {number} of {rounds}: {done[-1].line()}")
    return done, world.close()


def main() -> int:
    """Run it from the command line; 0 if all books balance."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=6.0)
    parser.add_argument("--round-minutes", type=float, default=ROUND_MINUTES)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--pace", type=float, default=PACE, help="seconds from one object to the next (default: 20)")
    parser.add_argument("--interval", type=float, default=INTERVAL, help="seconds between two incidents (default: 60)")
    parser.add_argument("--backend", choices=("embedded", "system"), default="embedded")
    parser.add_argument("--report", type=Path, default=Path("soak-report"), help="directory (default: soak-report)")
    given = parser.parse_args()
    seconds = given.round_minutes * 60
    rounds = max(1, round(given.hours * 3600 / seconds))
    given.report.mkdir(parents=True, exist_ok=True)
    report = given.report / "rounds.jsonl"
    report.write_text("")
    # SLURM's sockets need a short path.
    directory = Path(tempfile.mkdtemp(prefix="soak-"))

    def say(words: str) -> None:
        print(f"{time.strftime('%H:%M:%S', time.gmtime())}Z  {words}", flush=True)

    say(f"seed {given.seed}, {rounds} rounds of {given.round_minutes:g} minutes; everything is below {directory}")
    total = rounds * seconds
    site = RealChain(directory / "chain") if given.backend == "system" else None
    with World(
        directory,
        seed=given.seed,
        seconds=total,
        objects=int(total / given.pace),
        patience=PATIENCE,
        say=say,
        site=site,
        streaming=1.0,
    ) as world:
        done, books = run(
            world, seed=given.seed, rounds=rounds, seconds=seconds, interval=given.interval, report=report
        )
    text = summary(done, books)
    (given.report / "summary.txt").write_text(text + "\n")
    say("\n" + text)
    return 0 if books.balanced and all(one.balanced for one in done) else 1


if __name__ == "__main__":
    sys.exit(main())
