# SPDX-License-Identifier: Apache-2.0
"""A batch script that runs on the compute node itself, without a container, through interLink's SLURM plugin.

The plugin knows pods alone, and pastes the text of an annotation into the batch script before it starts the containers.
That text runs the supervisor on the host, writes log and exit code where the plugin looks for those of the container
(``run-job.out``, ``run-job.status``), and ends the batch job before the container would be started.
"""

from __future__ import annotations

import shlex

from airflow_provider_oscar.core.sbatch import interpreter
from airflow_provider_oscar.jobs.start_script import launcher

#: Stands where a pod needs an image; it is never pulled.
HOST_IMAGE = "docker://no-container.invalid/this-job-runs-on-the-host"
#: Key of the job's Secret that says so. A plugin that mixes up the texts of two pods (its prefix is one variable for
#: all) thereby cannot make a job leave its container.
HOST_MARK = "on-host"
#: Name of the script among the job's files.
SCRIPT_FILE = "script.sh"


def script_command(script: str) -> list[str]:
    """Return the command that runs the script with the interpreter of its first line.

    :param script: text of the script.
    :raises DefinitionError: for a script that ``sbatch`` would refuse.
    """
    # The file itself need not be executable where it is: file systems for jobs may forbid that.
    return ["/bin/sh", "-c", f'exec {shlex.join(interpreter(script))} "$JOB_FILES_DIR/{SCRIPT_FILE}"']


def host_pre_exec(job_file: str, program_file: str) -> str:
    """Return the text for ``SlurmOptions.pre_exec``; the same for every job.

    :param job_file: name of the specification in the job's Secret.
    :param program_file: name of the supervisor's program there.
    """
    start = launcher("OSCAR_SUPERVISOR", f'--job "$OSCAR_SECRET/{job_file}"')
    return (
        # Where the batch script's output goes is the pod's directory, in which the plugin puts the Secret's files.
        'OSCAR_DIR=$(readlink "/proc/$$/fd/1"); OSCAR_DIR=${OSCAR_DIR%/*}\n'
        f'OSCAR_SECRET=$(find "$OSCAR_DIR/secrets" -name {HOST_MARK} 2>/dev/null | head -n 1)\n'
        'if [ -n "$OSCAR_SECRET" ]; then\n'
        "  OSCAR_SECRET=${OSCAR_SECRET%/*}\n"
        f'  ( IFS= read -r OSCAR_SUPERVISOR < "$OSCAR_SECRET/{program_file}"; export OSCAR_SUPERVISOR\n'
        f"    {start}\n"
        "    echo 'airflow-oscar: no python3 (3.8 or later) on the compute node; load one with SlurmOptions.pre_exec'\n"
        '    exit 127 ) > "$OSCAR_DIR/run-job.out" 2>&1\n'
        "  OSCAR_CODE=$?\n"
        '  echo "$OSCAR_CODE" > "$OSCAR_DIR/run-job.status"\n'
        '  exit "$OSCAR_CODE"\n'
        "fi\n"
    )
