# SPDX-License-Identifier: Apache-2.0
"""Examples that ``--help`` of each command ends with; a test parses every one with the command's own parser."""

from __future__ import annotations

from airflow.cli.cli_config import ActionCommand, CLICommand, GroupCommand

#: By the command's words after ``airflow oscar``.
EXAMPLES: dict[str, tuple[str, ...]] = {
    "buckets get": ("cowsay out/hello.txt --file hello.txt", "cowsay out/ --latest"),
    "buckets list": ("", "cowsay --prefix out/ -o json"),
    "buckets put": ("cowsay hello.txt --key in/hello.txt",),
    "check": ("oscar_default", "oscar_s3_default --place s3://incoming/raw/ --write -o json"),
    "cluster images": ("ghcr.io/grycap docker.io/library",),
    "cluster info": ("", "-c oscar_production -o json"),
    "cluster logs": ("-o json",),
    "cluster metrics": ("", "--by user --since 2026-11-01T00:00:00Z", "--service cowsay -o json"),
    "cluster status": ("-o yaml",),
    "demo": ("", "--report /tmp/report"),
    "events convert": ("notification.json", "--to minio < event.json"),
    "hpc cancel": ("infer-59c11b5ce8e2cab6 -n team-a",),
    "hpc jobs": ("", "-n team-a -o plain"),
    "hpc nodes": ("", "-c interlink_juelich -o json"),
    "hpc orphans": ("--older-than 180", "--remove"),
    "hub apply": ("cowsay", "cowsay --service my-cow --dry-run"),
    "hub list": ("", "-o json"),
    "hub show": ("cowsay",),
    "import dcnios": ("workflow.yaml --dag-file dags/workflow.py --connections connections.json",),
    "import storage": ("", "service.yaml --dry-run", "--service grayify --prefix upv_"),
    "import-config": ("", "~/.oscar-cli/config.yaml --overwrite"),
    "jobs cancel": ("cowsay cowsay-59c11b5ce8e2cab6",),
    "jobs clear": ("cowsay", "cowsay --all"),
    "jobs list": ("cowsay", "cowsay --status Pending,Running", "cowsay -o json | jq -r .[].name"),
    "jobs logs": ("cowsay --latest --follow", "cowsay cowsay-59c11b5ce8e2cab6"),
    "objects backfill": ("--asset 's3://incoming/raw/*.h5' --until 2026-11-22 --dry-run",),
    "objects list": ("--asset 's3://incoming/raw/*.h5' --since 2026-11-22",),
    "objects replay": ("--asset 's3://incoming/raw/*.h5' --failed-only --dry-run",),
    "places list": ("", "-o json | jq -r '.[] | select(.failing_since) | .asset'"),
    "placements list": ("", "--dag-id threedgan_inference --limit 10 -o yaml"),
    "placements targets": ("", "-o json"),
    "quotas get": ("", "somebody@egi.eu -o json"),
    "quotas set": ("somebody@egi.eu --volumes disk=20Gi --minio buckets=10", "somebody@egi.eu --cpu 8 --memory 16Gi"),
    "results link": ("threedgan_inference manual__1 infer.hpc-gpu a.png",),
    "results list": ("", "--dag-id threedgan_inference --limit 10 -o json"),
    "results show": ("threedgan_inference manual__1 infer.hpc-gpu", "count_words manual__1 count -o json"),
    "runs export": ("", "-o parquet --file runs.parquet --since 2026-11-22", "-o json --dag-id threedgan_inference"),
    "runs prune": ("--older-than 30",),
    "runs score": ("", "--by policy --since 2026-11-22", "-o json"),
    "services authorise": ("cowsay", "cowsay --token-file token.txt -o json"),
    "services apply": ("cowsay.yaml", "threedgan_service.yaml --param image=threedgan:1 --dry-run"),
    "services delete": ("cowsay", "cowsay --yes"),
    "services get": ("cowsay -o yaml",),
    "services job": ("cowsay --text hello", "cowsay --file event.json --name cowsay-monday"),
    "services list": ("", "-o json"),
    "services run": ("cowsay --text hello",),
    "volumes create": ("weights 5Gi",),
    "volumes delete": ("weights --yes",),
    "volumes list": ("", "weights -o json"),
    "up": ("--directory .platform",),
}


def with_examples(command: CLICommand, path: str = "") -> CLICommand:
    """Return a command, and those below it, with its examples at the end of its help.

    :param command: of the table.
    :param path: its words so far, without the first.
    """
    if isinstance(command, GroupCommand):
        below = [with_examples(each, f"{path} {each.name}".strip()) for each in command.subcommands]
        return command._replace(subcommands=below)
    if not isinstance(command, ActionCommand) or path not in EXAMPLES:
        return command
    lines = [f"  airflow oscar {path} {words}".rstrip() for words in EXAMPLES[path]]
    return command._replace(epilog="\n".join(["examples:", *lines]))
