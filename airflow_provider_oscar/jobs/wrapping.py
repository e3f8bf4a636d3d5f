# SPDX-License-Identifier: Apache-2.0
"""Services with scripts of their own, whose exit code counts: ``script: "@wrap infer.sh"``.

OSCAR's supervisor gives every script the same welcome (a file in ``INPUT_FILE_PATH``, whatever is in ``TMP_OUTPUT_DIR``
is uploaded) and ignores how it ends. The wrapped script sees just that, and afterwards a marker line says exit code,
outputs and cost. In an image without Python the shell itself writes the line, with the exit code alone.
"""

from __future__ import annotations

import json
import shlex

from msgspec.structs import replace

from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.core.logs import MARKER
from airflow_provider_oscar.core.services import ServiceDefinition
from airflow_provider_oscar.jobs.manifest import MANIFEST_VERSION
from airflow_provider_oscar.jobs.start_script import LIVE_OUTPUT, VARIABLE_LIMIT, encoded_program, launcher

#: What precedes the name of a script in an FDL to have it wrapped.
WRAP = "@wrap "

# Nothing but the shell's own words, since an image may have no other.
_WITHOUT_PYTHON = """\
start=`date -u +%Y-%m-%dT%H:%M:%SZ`
(
    script=$AIRFLOW_OSCAR_WRAP_SCRIPT
    unset AIRFLOW_OSCAR_WRAP_PROGRAM AIRFLOW_OSCAR_WRAP_SCRIPT
    exec /bin/sh -c "$script" /oscar/config/script.sh
)
code=$?
end=`date -u +%Y-%m-%dT%H:%M:%SZ`
printf '\\n%s{form}\\n' '{marker}' "$JOB_UUID" "$code" "$start" "$start" "$start" "$end"
exit "$code"
"""


def wrapped(definition: ServiceDefinition) -> ServiceDefinition:
    """Return the service with its script wrapped; the script itself stays as it is.

    :raises DefinitionError: if the script is longer than an environment variable.
    """
    name = f"AIRFLOW_OSCAR_WRAP_SCRIPT={definition.script}"
    if len(name.encode("utf-8", "surrogateescape")) > VARIABLE_LIMIT:
        raise DefinitionError(
            f"the script of service {definition.name!r} is longer than the {VARIABLE_LIMIT} bytes that can be wrapped; "
            "put its programs into the image"
        )
    target = next((each for each in definition.outputs if each.storage_provider.startswith(("minio.", "s3."))), None)
    wanted = {
        "output_uri": "" if target is None else f"s3://{target.path}/",
        "prefix": list(target.prefix) if target else [],
        "suffix": list(target.suffix) if target else [],
    }
    form = json.dumps(
        {
            "version": MANIFEST_VERSION,
            "submission_id": "@s",
            "placement": "",
            "input": None,
            "output_uri": wanted["output_uri"],
            "outputs": [],
            "exit_code": "@d",
            "error": None,
            "phases": {"queued": {"start": "@s", "end": "@s"}, "run": {"start": "@s", "end": "@s"}},
            "node": "",
            "slurm_job_id": None,
            "device": None,
            "metrics": {},
            "proof": "wrapped",
        },
        separators=(",", ":"),
    )
    form = form.replace("\\", "\\\\").replace("%", "%%").replace("'", "'\\''")
    form = form.replace('"@d"', "%d").replace("@s", "%s")
    start = launcher("AIRFLOW_OSCAR_WRAP_PROGRAM", f"--wrap {shlex.quote(json.dumps(wanted))}")
    script = "\n".join(
        [
            "#!/bin/sh",
            "# The script of this service, in AIRFLOW_OSCAR_WRAP_SCRIPT, wrapped by airflow-provider-oscar.",
            f"AIRFLOW_OSCAR_WRAP_SCRIPT={shlex.quote(definition.script)}",
            f"AIRFLOW_OSCAR_WRAP_PROGRAM='{encoded_program()}'",
            "export AIRFLOW_OSCAR_WRAP_PROGRAM AIRFLOW_OSCAR_WRAP_SCRIPT",
            LIVE_OUTPUT + start,
            _WITHOUT_PYTHON.format(form=form, marker=MARKER),
        ]
    )
    return replace(definition, script=script)
