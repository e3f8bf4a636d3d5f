# SPDX-License-Identifier: Apache-2.0
"""The verdict: what was uploaded, what the commands themselves wrote down, and what Airflow says, side by side."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

#: Objects whose name has this are to fail: their command ends with 3.
BAD = "bad"


@dataclass(frozen=True)
class Entry:
    """One line of the ledger that the commands write.

    :param key: of the object.
    :param what: ``begun`` or ``ended``; or ``killed``, which the incident writes that ends a job on its site's behalf.
    :param job: number of its SLURM job.
    """

    key: str
    what: str
    job: str = ""


@dataclass(frozen=True)
class Run:
    """One DAG run.

    :param key: of its object.
    :param state: Airflow's word.
    :param dag_id: its DAG.
    """

    key: str
    state: str
    dag_id: str = ""


def read_entries(lines: Iterable[str]) -> list[Entry]:
    """Return the entries of a ledger; a line that was cut is left out."""
    found = []
    for line in lines:
        try:
            values = json.loads(line)
            found.append(Entry(str(values["key"]), str(values["what"]), str(values.get("job") or "")))
        except (ValueError, KeyError, TypeError):
            continue
    return found


@dataclass(frozen=True)
class Books:
    """What came of everything; every list is empty when nothing went wrong for good.

    :param objects: that were uploaded.
    :param lost: objects without a run.
    :param doubled: objects with more than one run.
    :param executed_twice: good objects whose command ended more than once, beside those that their site killed.
    :param false_success: runs that succeeded although no command ended, or although it failed.
    :param failed: good objects whose run failed for good.
    :param stuck: objects whose run had not ended when patience did.
    :param orphans: pods, Secrets and jobs that nobody waits for.
    :param recovery: seconds from the end of the last incident until a run of every DAG that had some left had ended.
    :param drained: seconds from the end of the last incident until every run had ended.
    :param recovers_within: seconds that recovery may take.
    """

    objects: int
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    executed_twice: list[str] = field(default_factory=list)
    false_success: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)
    orphans: list[str] = field(default_factory=list)
    recovery: float = 0.0
    drained: float = 0.0
    recovers_within: float = 120.0

    @property
    def counts(self) -> Mapping[str, int]:
        """How much of each went wrong."""
        names = ("lost", "doubled", "executed_twice", "false_success", "failed", "stuck", "orphans")
        return {name: len(getattr(self, name)) for name in names}

    @property
    def balanced(self) -> bool:
        """Whether nothing did."""
        return not any(self.counts.values()) and self.recovery <= self.recovers_within

    def table(self) -> str:
        """Return the verdict for people."""
        lines = [f"{'objects':32}{self.objects:>6}"]
        for name, count in self.counts.items():
            lines.append(f"{name.replace('_', ' '):32}{count:>6}")
            lines += [f"  {each}" for each in getattr(self, name)[:10]]
        lines.append(f"{'seconds to recover':32}{self.recovery:>6.0f}  (at most {self.recovers_within:.0f})")
        lines.append(f"{'seconds until all had ended':32}{self.drained:>6.0f}")
        return "\n".join(lines)


def close_books(
    uploaded: Iterable[str],
    entries: Iterable[Entry],
    runs: Iterable[Run],
    *,
    orphans: Iterable[str],
    recovery: float,
    drained: float = 0.0,
    recovers_within: float = 120.0,
) -> Books:
    """Compare the three accounts.

    :param uploaded: keys of the objects.
    :param entries: what the commands wrote.
    :param runs: what Airflow has.
    :param orphans: what was left behind.
    :param recovery: seconds until each DAG worked again.
    :param drained: seconds until every run had ended.
    :param recovers_within: seconds that recovery may take.
    """
    keys, entries = sorted(set(uploaded)), list(entries)
    ended = Counter(each.key for each in entries if each.what == "ended")
    jobs = {(each.key, each.job) for each in entries if each.what == "ended"}
    killed = Counter(each.job for each in entries if each.what == "killed")
    # A site may end a job whose command is done and whose results are on their way; that one has to run again.
    excused = Counter(key for key, job in jobs for _ in range(killed[job] if job else 0))
    by_key: dict[str, list[str]] = {}
    for run in runs:
        by_key.setdefault(run.key, []).append(run.state)
    good = [key for key in keys if BAD not in key]
    succeeded = {key for key, states in by_key.items() if "success" in states}
    return Books(
        objects=len(keys),
        lost=[key for key in keys if key not in by_key],
        doubled=sorted(key for key, states in by_key.items() if len(states) > 1),
        executed_twice=[f"{key}: {ended[key]} times" for key in good if ended[key] > 1 + excused[key]],
        false_success=sorted(key for key in succeeded if not ended[key] or BAD in key),
        failed=[key for key in good if "failed" in by_key.get(key, ())],
        stuck=[key for key in keys if key in by_key and not {"success", "failed"}.intersection(by_key[key])],
        orphans=sorted(orphans),
        recovery=recovery,
        drained=drained,
        recovers_within=recovers_within,
    )
