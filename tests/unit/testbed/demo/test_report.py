# SPDX-License-Identifier: Apache-2.0
"""The report page: complete in itself, and safe with hostile object names."""

from __future__ import annotations

from oscar_testbed.demo.report import run_time_chart, write_report
from oscar_testbed.demo.results import Row

HOSTILE = "s3://in/<script>alert(1)</script>&[red]"
ROWS = [
    Row(
        HOSTILE,
        "s3",
        "hpc-cpu",
        "because",
        {"queued": 1.0, "run": 2.5},
        "SLURM 1",
        4,
        "cpu",
        "success",
        True,
        False,
        b"\x89PNG",
    ),
    Row("s3://in/b", "s3", "", "", {}, "", None, "", "no manifest", False, False, None),
]


def test_report_escapes_object_names_and_needs_no_other_file(tmp_path):
    path = tmp_path / "demo-report" / "report.html"
    write_report(path, ROWS, ["s3://in/b: no manifest"], ["facts"])
    page = path.read_text()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert 'src="data:image/png;base64,' in page
    assert "http://" not in page.replace("http://www.w3.org", "").replace("http://purl.org", "").replace(
        "http://creativecommons.org", ""
    )
    assert "s3://in/b: no manifest" in page


def test_chart_shows_targets_that_succeeded_only():
    chart = run_time_chart(ROWS)
    assert chart.lstrip().startswith("<svg")
    assert "hpc-cpu" in chart
