# SPDX-License-Identifier: Apache-2.0
"""Dashboard and alerts ask for metrics that exist, as Prometheus spells them, and the page explains each alert."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from airflow_provider_oscar.metrics import METRICS

ROOT = Path(__file__).parents[3]
MONITORING = ROOT / "deploy" / "monitoring"
DASHBOARD = json.loads((MONITORING / "grafana-dashboard.json").read_text())
GROUPS = yaml.safe_load((MONITORING / "prometheus-rules.yaml").read_text())["groups"]
RULES = [rule for group in GROUPS for rule in group["rules"]]
PAGE = (ROOT / "docs" / "monitoring.md").read_text()
EXPORTED = {f"airflow_{metric.name.replace('.', '_')}": metric for metric in METRICS}


def names(expression: str) -> set[str]:
    return set(re.findall(r"\bairflow_oscar_[a-z_]+", expression))


def expressions() -> list[str]:
    return [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]


def test_the_dashboard_shows_every_metric_and_no_other():
    assert {name for each in expressions() for name in names(each)} == set(EXPORTED)


def test_panels_have_ids_of_their_own_do_not_overlap_and_say_what_they_show():
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    taken = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken
        assert all(x < 24 for x, _ in cells)
        taken |= cells
        assert panel["title"]
        assert panel["description"].endswith(".")


@pytest.mark.parametrize("rule", RULES, ids=[rule["alert"] for rule in RULES])
def test_an_alert_asks_for_metrics_that_are_sent_and_says_what_to_do(rule):
    assert names(rule["expr"])
    assert names(rule["expr"]) <= set(EXPORTED)
    assert rule["labels"]["severity"] in ("warning", "critical")
    assert rule["annotations"]["summary"]
    assert rule["annotations"]["description"]
    assert f"| `{rule['alert']}` |" in PAGE


@pytest.mark.parametrize("expression", [*expressions(), *(rule["expr"] for rule in RULES)])
def test_parentheses_and_braces_of_an_expression_are_closed(expression):
    for opening, closing in ("()", "{}", "[]"):
        assert expression.count(opening) == expression.count(closing)


def test_a_tag_that_is_asked_for_is_one_the_metric_has():
    for expression in expressions():
        for name, labels in re.findall(r"\b(airflow_oscar_[a-z_]+)\{([^}]*)\}", expression):
            assert set(re.findall(r"(\w+)=", labels)) <= set(EXPORTED[name].tags)
