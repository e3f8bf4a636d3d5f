# SPDX-License-Identifier: Apache-2.0
"""A command whose reader goes away, and one that somebody interrupts."""

from __future__ import annotations

import shlex
import subprocess
import sys


def test_a_reader_that_has_seen_enough_ends_a_command_without_a_traceback():
    program = (
        "from airflow_provider_oscar.cli.answers import print_rows, reports_errors\n"
        "reports_errors(lambda _: print_rows([{'name': 'x' * 1000}] * 1000, ('name',), 'plain'))(None)"
    )
    command = f"{shlex.quote(sys.executable)} -c {shlex.quote(program)} | head -1"
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (141, "name\n", "")


def test_ctrl_c_ends_a_command_with_a_word_and_no_traceback():
    program = (
        "import os, signal, time\n"
        "from airflow_provider_oscar.cli.answers import reports_errors\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's job in the background ignores it\n"
        "reports_errors(lambda _: (os.kill(os.getpid(), signal.SIGINT), time.sleep(60)))(None)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")
