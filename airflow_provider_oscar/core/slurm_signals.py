# SPDX-License-Identifier: Apache-2.0
"""The signal of ``--signal``, on its way from SLURM to the command of a job.

SLURM sends ``--signal=B:USR1@60`` to the batch script's shell alone, which would end of it, and the job with it. So
that shell runs the script once more in the background, which does not hear the signal, and passes what comes on to the
supervisor, which gives it to the command.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from airflow_provider_oscar.core.errors import DefinitionError, quoted

#: Signals that the supervisor passes on, by name and by Linux's number.
PASSED_ON = {"HUP": "1", "INT": "2", "QUIT": "3", "USR1": "10", "USR2": "12", "TERM": "15"}
_FLAG = "--signal="
_FORM = re.compile(r"(?:[RB]+:)?(?:SIG)?(?P<name>[A-Z0-9]+)(?:@\d+)?")

# The supervisor is the first process below the job that has the argument `--job`; copies of it, for the objects of a
# batch, hear from it. It forbids others to look into it, but not to see its arguments, its parent and whether it is
# ready for the signal. One that comes before that (an image is pulled for minutes) is kept until it is. All are looked
# for before the first is signalled: one that ends of it shows no arguments any more, while its copies are still below.
_PASS_ON = """\
if [ -z "${OSCAR_SIGNALS-}" ]; then
  export OSCAR_SIGNALS=NAME
  trap '' NAME
  bash "$0" "$@" &
  OSCAR_JOB=$!
  OSCAR_EARLY=
  oscar_ready() {
    OSCAR_CAUGHT=$(sed -n 's/^SigCgt:[[:space:]]*//p' "/proc/$1/status" 2> /dev/null)
    [ $(( 0x${OSCAR_CAUGHT:-0} >> (NUMBER - 1) & 1 )) = 1 ]
  }
  oscar_supervises() {
    grep -qzxe --job "/proc/$1/cmdline" 2> /dev/null
  }
  oscar_pass_on() {
    OSCAR_EARLY=1
    OSCAR_FOUND=
    for OSCAR_PROCESS in $(grep -lzxe --job /proc/[0-9]*/cmdline 2> /dev/null); do
      OSCAR_PROCESS=${OSCAR_PROCESS#/proc/}
      OSCAR_PROCESS=${OSCAR_PROCESS%/cmdline}
      OSCAR_PARENT=$OSCAR_PROCESS
      while [ "$OSCAR_PARENT" != "$OSCAR_JOB" ]; do
        OSCAR_PARENT=$(sed 's/.*) . //; s/ .*//' "/proc/$OSCAR_PARENT/stat" 2> /dev/null)
        [ "${OSCAR_PARENT:-0}" -gt 1 ] && ! oscar_supervises "$OSCAR_PARENT" || continue 2
      done
      oscar_ready "$OSCAR_PROCESS" && OSCAR_FOUND="$OSCAR_FOUND $OSCAR_PROCESS"
    done
    for OSCAR_PROCESS in $OSCAR_FOUND; do
      kill -NAME "$OSCAR_PROCESS" && OSCAR_EARLY=
    done
  }
  trap oscar_pass_on NAME
  while kill -0 "$OSCAR_JOB" 2> /dev/null; do
    if [ -n "$OSCAR_EARLY" ]; then sleep 1; oscar_pass_on; else wait "$OSCAR_JOB"; fi
  done
  wait "$OSCAR_JOB"
  exit $?
fi
"""


def check_signal(flags: Iterable[str], *, steps: bool) -> None:
    """Refuse a signal that the command of a job would never get.

    :param flags: of ``sbatch``.
    :param steps: the command runs in steps of ``srun``, which SLURM signals itself.
    :raises DefinitionError: with the form that works.
    """
    for flag in flags:
        if not flag.startswith(_FLAG):
            continue
        match = _FORM.fullmatch(flag.removeprefix(_FLAG))
        name = match["name"] if match else ""
        if name not in PASSED_ON and name not in PASSED_ON.values():
            raise DefinitionError(
                f"SlurmOptions.extra_flags holds {quoted(flag)}; signals that reach the command are "
                f"{', '.join(PASSED_ON)}, as in --signal=B:USR1@60"
            )
        if not steps and not flag.startswith(f"{_FLAG}B:"):
            raise DefinitionError(
                f"SlurmOptions.extra_flags holds {quoted(flag)}, which SLURM sends to steps of srun alone; write "
                f"{_FLAG}B:{flag.removeprefix(_FLAG).rpartition(':')[2]}, and the command gets it"
            )


def passing_on(flags: Iterable[str]) -> str:
    """Return shell text for the beginning of a batch script that passes SLURM's signal on; empty without one.

    :param flags: of ``sbatch``.
    """
    for flag in flags:
        match = _FORM.fullmatch(flag.removeprefix(_FLAG)) if flag.startswith(f"{_FLAG}B:") else None
        if match is not None:
            names = {number: name for name, number in PASSED_ON.items()}
            name = names.get(match["name"], match["name"])
            return _PASS_ON.replace("NAME", name).replace("NUMBER", PASSED_ON.get(name, "0"))
    return ""
