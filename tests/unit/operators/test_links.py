# SPDX-License-Identifier: Apache-2.0
"""Extra links lead where a browser can go."""

from __future__ import annotations

from types import SimpleNamespace
from urllib.parse import parse_qs, urlsplit

from airflow_provider_oscar.links import OutputLink

KEY = SimpleNamespace(dag_id="d", run_id="manual__2026-11-22T12:00:00+00:00", task_id="a.b", map_index=2)


def test_the_output_link_opens_the_result_on_our_page():
    url = urlsplit(OutputLink().get_link(SimpleNamespace(link_urls={"Output": "s3://out/x/"}), ti_key=KEY))
    assert (url.path.removeprefix("/").rpartition("oscar/ui/")[1], url.fragment) == ("oscar/ui/", "results")
    asked = {name: values[0] for name, values in parse_qs(url.query).items()}
    assert asked == {"dag_id": "d", "run_id": KEY.run_id, "task_id": "a.b", "map_index": "2"}


def test_there_is_no_output_link_before_the_task_knows_where_its_output_goes():
    assert OutputLink().get_link(SimpleNamespace(), ti_key=KEY) == ""
