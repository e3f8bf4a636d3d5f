# SPDX-License-Identifier: Apache-2.0
"""The report page: complete in itself, and safe with hostile object names."""

from __future__ import annotations

import re

from oscar_testbed.demo.report import run_time_chart, write_report
from oscar_testbed.demo.results import Findings, Row

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
        True,
        False,
        b"\x89PNG",
    ),
    Row("s3://in/b", "s3", "", "", {}, "", None, "", "no manifest", False, True, False, None),
]


def test_report_escapes_object_names_and_needs_no_other_file(tmp_path):
    path = tmp_path / "demo-report" / "report.html"
    write_report(path, ROWS, Findings(["s3://in/b: no manifest"]), ["facts"])
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


def test_report_says_what_failed_and_what_had_not_ended(tmp_path):
    write_report(tmp_path / "r.html", ROWS, Findings([], ["s3://in/b: late"]), ["2026-01-01", "Airflow 3.3.2"])
    page = (tmp_path / "r.html").read_text()
    assert "Not finished when the demo gave up" in page
    assert ">Failed<" not in page
    assert "<li>Airflow 3.3.2</li>" in page


def test_every_picture_opens_in_full_size_and_closes_again(tmp_path):
    write_report(tmp_path / "r.html", ROWS, Findings(), [])
    page = (tmp_path / "r.html").read_text()
    assert re.findall(r'<figure id="([^"]+)">', page) == ["shower-1"]
    assert 'href="#shower-1"' in page
    assert 'class="close" href="#showers"' in page
    assert 'name="viewport" content="width=device-width' in page


def test_every_cell_has_a_label_for_narrow_screens(tmp_path):
    write_report(tmp_path / "r.html", ROWS, Findings(), [])
    body = (tmp_path / "r.html").read_text().partition("<tbody>")[2].partition("</tbody>")[0]
    assert body.count("<td") == body.count("data-label=")
