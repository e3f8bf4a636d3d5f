# SPDX-License-Identifier: Apache-2.0
"""The page of every message, read from the code without importing it: by subject, and by what the task does next."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "airflow_provider_oscar"
#: What follows each kind of error, as :func:`airflow_provider_oscar._airflow.airflow_errors` decides.
KINDS = {
    "DefinitionError": "correct the DAG file, the arguments or the connection. The task fails at once.",
    "AccessError": "credentials were refused or a right is missing. `retries` apply: servers say so by mistake too.",
    "TransientError": "the other side could not answer now. `retries` apply.",
    "PermanentError": "the same attempt would fail the same way. The task fails at once.",
    "BadInputError": "the object itself is at fault. The task fails at once.",
    "JobFailedError": "the job ran and failed, or could not be run. The task fails at once.",
    "JobSkippedError": "the command said that there was nothing to do. The task is skipped.",
    "LostContactError": "neither success nor failure is proven. `retries` apply; the next try looks before it repeats.",
    "StageError": "the job itself says so; its [exit code](../jobs.md#see-why-a-job-failed) decides.",
}
#: Kinds of what the tables of job failures say, by the word that stands before it.
VERDICTS = {
    "BAD_REQUEST": "DefinitionError",
    "BAD_IMAGE": "DefinitionError",
    "TIME_LIMIT": "JobFailedError",
    "OUT_OF_MEMORY": "JobFailedError",
    "LIMIT_REACHED": "TransientError",
    "SITE": "TransientError",
    "FAILED": "JobFailedError",
    "LOST": "LostContactError",
}
#: Headings and the modules below them; the first that fits counts.
SUBJECTS = {
    "Commands": ("cli/",),
    "Said by the job itself": ("supervisor/",),
    "Why a job failed": ("jobs/failures", "jobs/outcome", "jobs/time_limits", "core/refusals"),
    "S3": ("hooks/s3/",),
    "dCache and WebDAV": ("hooks/dcache/", "operators/dcache"),
    "OSCAR and its services": (
        *("hooks/oscar/", "jobs/oscar", "jobs/unnamed", "jobs/success", "jobs/wrapping", "sensors/oscar"),
        *("operators/oscar", "operators/service_", "core/fdl", "core/service", "core/coercion", "core/oscar_events"),
        "core/provider_storage",
    ),
    "SLURM, interLink and Kubernetes": (
        *("hooks/interlink/", "hooks/slurm/", "jobs/interlink", "jobs/kubernetes", "sensors/interlink", "core/pod"),
        *("operators/interlink", "operators/kubernetes", "operators/pod", "operators/maintenance"),
        *("core/sbatch", "core/slurm", "core/batches"),
    ),
    "Other file systems, Rucio, message brokers": (
        *("hooks/filesystem/", "hooks/rucio/", "hooks/kafka/", "hooks/stomp/", "core/rucio"),
    ),
    "Any server": ("hooks/",),
    "New objects and runs": (
        *("ingest/", "watch/", "triggers/", "sensors/", "operators/backfill", "operators/replay", "assets"),
        *("run_objects", "core/filters", "core/fsspec", "core/notification", "core/objects", "core/alterations"),
    ),
    "Placement": (
        *("placement/", "operators/placed", "operators/placement", "operators/choosing", "decorators/placement"),
    ),
    "Python functions": ("decorators/", "jobs/function", "jobs/environment"),
    "Jobs and results": ("",),
}


def messages() -> dict[str, list[tuple[str, str]]]:
    """Return for each subject its messages and the kind of each; ``…`` stands for what the code puts in."""
    trees = {path: ast.parse(path.read_text()) for path in sorted(PACKAGE.rglob("*.py"))}
    parents = {
        node.name: base.id
        for tree in trees.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
        for base in node.bases
        if isinstance(base, ast.Name)
    }
    found: dict[str, dict[str, str]] = {subject: {} for subject in SUBJECTS}
    for path, tree in trees.items():
        module = path.relative_to(PACKAGE).with_suffix("").as_posix()
        subject = next(each for each, starts in SUBJECTS.items() if module.startswith(starts))
        for kind, text in _said(tree, parents, in_job=module.startswith("supervisor/")):
            shown = re.sub(r"…(?:[ '\"]*…)+", "…", " ".join(text.split()))
            if len(re.findall(r"[a-z]{2,}", shown)) > 2:
                found[subject].setdefault(shown, kind)
    return {
        subject: sorted(each.items(), key=lambda pair: pair[0].lstrip("…:;,'\" ").lower())
        for subject, each in found.items()
    }


def page() -> str:
    """Return the page."""
    lines = ["# Every message", "", "Generated from the code: search it for some words of the message that you have."]
    lines += ["`…` stands for names and numbers. The kind says what follows.", ""]
    lines += ["| kind | what follows |", "| --- | --- |", *(f"| {kind} | {what} |" for kind, what in KINDS.items())]
    for subject, pairs in messages().items():
        if pairs:
            lines += ["", f"## {subject}", ""]
            lines += [f"- {_code(text)} *{kind}*" for text, kind in pairs]
    return "\n".join([*lines, ""])


def _said(tree: ast.Module, parents: dict[str, str], *, in_job: bool) -> Iterator[tuple[str, str]]:
    """Yield kind and text of what is raised, and of what the tables and verdicts of jobs say."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            words = [each.attr for each in node.args if isinstance(each, ast.Attribute)]
            verdict = VERDICTS.get(words[0], "") if words and node.func.id in ("Row", "JobOutcome") else ""
            kind, said = (
                (verdict, node.args[-1:]) if verdict else (_kind(node.func.id, parents, in_job=in_job), node.args[:1])
            )
        elif isinstance(node, ast.Tuple) and len(node.elts) == 2 and isinstance(node.elts[0], ast.Name):
            kind, said = _kind(node.elts[0].id, parents, in_job=in_job), node.elts[1:]
        else:
            continue
        if kind:
            yield from ((kind, text) for each in said for text in _texts(each))


def _kind(name: str, parents: dict[str, str], *, in_job: bool) -> str:
    if in_job:
        return "StageError" if name in ("StageError", "TransientError", "RefusedError") else ""
    while name and name not in KINDS:
        name = parents.get(name, "")
    return name


def _texts(node: ast.expr) -> Iterator[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.JoinedStr):
        yield "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
    elif isinstance(node, ast.IfExp):
        yield from _texts(node.body)
        yield from _texts(node.orelse)
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        for left in _texts(node.left) or ("…",):
            yield from (left + right for right in _texts(node.right))


def _code(text: str) -> str:
    return f"`` {text} ``" if "`" in text else f"`{text}`"
