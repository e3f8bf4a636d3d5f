# SPDX-License-Identifier: Apache-2.0
"""The shell scripts that start the supervisor: as the command of a pod, and as the script of an OSCAR service.

POSIX sh without a program of the image but the interpreter that they look for.
"""

from __future__ import annotations

import functools

from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.core.pods import SECRET_MOUNT_PATH
from airflow_provider_oscar.supervisor import bundle

#: Key of the supervisor's program in the pod's Secret. In the pod's environment it would travel with each list of pods.
PROGRAM_FILE = "supervisor"
#: Where a Python is that an init container brought along; an emptyDir.
PYTHON_PATH = "/airflow-oscar-python"
#: Linux allows 128 KiB for one ``NAME=value`` string.
VARIABLE_LIMIT = 128 * 1024 - 1

_NO_PYTHON = (
    "echo 'airflow-oscar: no python3 (3.8 or later) in the image, which the supervisor needs; "
    "use an image that has one, or RunOptions(supervisor_image=...)' >&2; exit 127"
)


# In a pod the program is a file of the Secret; some runtimes mount it elsewhere. `read` needs no program in the image.
_READ_PROGRAM = (
    f'f="$CONTAINER_SANDBOX_MOUNT_POINT{SECRET_MOUNT_PATH}/{PROGRAM_FILE}"; '
    f'[ -r "$f" ] || f="{SECRET_MOUNT_PATH}/{PROGRAM_FILE}"; '
    'IFS= read -r OSCAR_SUPERVISOR < "$f"; export OSCAR_SUPERVISOR; '
)


# OSCAR's supervisor keeps what its script prints in memory and shows it when the script has ended. Where its own output
# is a pipe, or a file that is only appended to, ours goes there, as it comes; other files would be written over. The
# end of our standard output is the end of the script for it, so that stays open as descriptor 9 (supervisor/main.py).
LIVE_OUTPUT = """\
live() {
    [ -n "$OSCAR_SERVICE_NAME$JOB_UUID" ] || return 1
    [ -p "$1" ] && return 0
    [ -f "$1" ] || return 1
    while read -r name value; do
        case "$name$value" in flags:*[2367]???) return 0 ;; esac
    done < "/proc/$PPID/fdinfo/1"
    return 1
}
if (live "/proc/$PPID/fd/1" && : >> "/proc/$PPID/fd/1") 2> /dev/null; then exec 9>&1 >> "/proc/$PPID/fd/1" 2>&1; fi
"""


def launcher(variable: str, arguments: str, *first: str) -> str:
    """Return sh that becomes the program, and goes on only if the image has no interpreter for it.

    Images differ in where they keep it, and "python" may be any version.

    :param variable: that holds the program.
    :param arguments: of the program, quoted for sh.
    :param first: interpreters to try before those of the image, as words of sh.
    """
    tried = [*first, "python3", "python", *(f"/{place}/bin/python3" for place in ("usr", "usr/local", "opt/conda"))]
    return (
        f"for p in {' '.join(tried)}; do "
        "if \"$p\" -c 'import sys; sys.exit(sys.version_info < (3, 8))' >/dev/null 2>&1; then "
        'exec "$p" -I -S -c \'import base64,os,zlib;exec(compile(zlib.decompress(base64.b64decode('
        f'os.environ["{variable}"])),"supervisor.py","exec"))\' {arguments}; fi; done; '
    )


def pod_script(job_file: str, *, brought: bool = False) -> str:
    """Return the script of a pod's command.

    :param job_file: name of the specification in the pod's Secret.
    :param brought: an init container brought a Python along, which is tried first.
    """
    first = (f'"$CONTAINER_SANDBOX_MOUNT_POINT{PYTHON_PATH}/bin/python3"',) if brought else ()
    start = launcher("OSCAR_SUPERVISOR", f"--job {SECRET_MOUNT_PATH}/{job_file}", *first)
    return _READ_PROGRAM + start + _NO_PYTHON


def copy_python() -> str:
    """Return the script of the init container that copies its image's Python into the volume at PYTHON_PATH."""
    return f'cp -R "${{AIRFLOW_OSCAR_PYTHON:-/python}}/." "$CONTAINER_SANDBOX_MOUNT_POINT{PYTHON_PATH}/"'


def service_script() -> str:
    """Return the script of an OSCAR service; see ``service_script``."""
    start = launcher("OSCAR_SUPERVISOR", '--job "$INPUT_FILE_PATH"')
    return (
        "#!/bin/sh\n"
        "# Runs jobs of airflow-provider-oscar; the program below is its supervisor.\n"
        f"{LIVE_OUTPUT}"
        f"OSCAR_SUPERVISOR='{encoded_program()}'\n"
        "export OSCAR_SUPERVISOR\n"
        f"{start}{_NO_PYTHON}\n"
    )


@functools.cache
def encoded_program() -> str:
    """Return the supervisor program as it travels: base64 of its zlib-compressed source.

    :raises DefinitionError: if it no longer fits one environment variable.
    """
    text = bundle.encoded_program()
    if len("OSCAR_SUPERVISOR=") + len(text) > VARIABLE_LIMIT:
        raise DefinitionError(
            f"the supervisor takes {len(text)} bytes; one environment variable holds {VARIABLE_LIMIT}"
        )
    return text
