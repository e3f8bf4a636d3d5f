# SPDX-License-Identifier: Apache-2.0
"""The provider's page where the demo never brings it: very many rows, nothing at all, answers that fail or do not come.

The page is the real one in the real Airflow; what it is answered is written here, in the shapes of ``plugins/ui``.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.support.oscar_page import PATIENCE, PICTURES, axe_faults, opened

playwright = pytest.importorskip("playwright.sync_api")

VIEWS = ("flow", "placements", "jobs", "results", "health")
WIDTHS = (390, 1024, 1600)
THEMES = ("light", "dark")
#: More than the API gives of anything.
MANY = 1000
NOW = datetime.now(UTC)
#: Long, without a place to break, as detectors name their files.
NAME = "run-{0:06d}-photons-theta-90-120-GeV-with_a_name_that_does_not_end_before_the_edge_of_the_table.h5"
PHASES = {"queued": 12.5, "stage-in": 3.2, "run": 640.0, "stage-out": 1.1}

pytestmark = pytest.mark.timeout(1800)


def ago(number: float) -> str:
    return (NOW - timedelta(minutes=number)).isoformat()


def job(number: int, **changes: Any) -> dict[str, Any]:
    states = ("success", "failed", "deferred", "queued", "up_for_retry", "upstream_failed")
    state = states[number % 6]
    done = state == "success"
    return {
        "id": f"d/r{number}/infer/-1",
        "dag_id": "threedgan_inference",
        "run_id": f"r{number}",
        "task_id": "infer.hpc_cpu",
        "map_index": number if number % 4 == 0 else -1,
        "try_number": 1,
        "state": state,
        "start": ago(number),
        "end": ago(number - 0.5),
        "url": "/dags/threedgan_inference",
        "object": f"s3://a-bucket-of-some-length/in/2026/11/{NAME.format(number)}",
        "target": "leonardo-booster-gpu" if number % 3 else "cloud-cpu",
        "slurm_job_id": str(7_000_000 + number) if done else None,
        "has_result": done,
        "phases": PHASES if done else {},
        "efficiency": 0.97 if done else None,
        "cost": 1234.5 if done else None,
        "outputs": number,
        "may_cancel": True,
        **changes,
    }


def placement(number: int) -> dict[str, Any]:
    return {
        "id": f"p{number}",
        "at": ago(number),
        "object": job(number)["object"],
        "target": "leonardo-booster-gpu",
        "reasons": [
            "the fastest of 3 targets: 656 s expected, between 600 s and 720 s",
            "its queue moves: 4 jobs wait",
        ],
        "rejected": {"cloud-cpu": "needs 2 GPUs, has none", "hpc-cpu": "expected 4200 s, 6.4 times as long"},
        "predicted": {"total": 656.0},
        "took": PHASES if number % 2 else {},
        "state": job(number)["state"],
    }


def place(number: int) -> dict[str, Any]:
    steps = [
        {"name": name, "state": "done", "at": ago(10 - step)}
        for step, name in enumerate(("seen", "run", "placed", "job"))
    ]
    event = {
        "object": job(number)["object"],
        "partition_key": "k",
        "at": ago(10),
        "state": "success",
        "dag_id": "d",
        "run_id": "r",
        "url": None,
        "steps": [*steps, {"name": "result", "state": "open", "at": None}],
    }
    failing = {
        "failing_since": ago(90),
        "failures": 12,
        "error": "connection 's3_desy': s3.example.org does not answer. Is it up?",
    }
    return {
        "id": number,
        "name": f"s3://a-bucket-of-some-length/in/{number}",
        "uri": f"s3://a-bucket-of-some-length/in/{number}",
        "triggered": number % 3 != 2,
        "consumers": ["threedgan_inference"],
        "last_event": ago(10) if number % 2 else None,
        "events": [event] * (number % 3),
        "status": {"last_listing": ago(1), "emitted": 12_345, "waiting": 3, **(failing if number % 3 == 1 else {})},
    }


def boxes() -> list[dict[str, Any]]:
    return [
        {"target": target, "phase": phase, "count": 40, "min": 1.0, "q1": 3.0, "median": 4.0, "q3": 7.5, "max": 800.0}
        for target in ("cloud-cpu", "leonardo-booster-gpu", "vega-cpu")
        for phase in PHASES
    ]


def target(number: int) -> dict[str, Any]:
    circuit = ("closed", "open", "half-open")[number % 3]
    return {
        "name": f"target-{number}",
        "circuit": circuit,
        "until": ago(-5) if circuit == "open" else None,
        "succeeded": 90,
        "jobs": 100,
        "median_seconds": 656.0,
        "median_cost": 0.0004,
        "within_interval": 0.81,
        "lately": 0.55,
        "last": ago(3),
    }


def result(number: int, files: int = 500) -> dict[str, Any]:
    listed = [
        {"key": f"job/{NAME.format(each)}", "size": 1_234_567 * each, "sha256": "0" * 64, "picture": False}
        for each in range(files)
    ]
    return {
        **job(number),
        "state": "success",
        "error": None,
        "node": "lrdn0042",
        "device": "NVIDIA A100-SXM-64GB",
        "job_id": "threedgan-0123456789abcdef",
        "exit_code": 0,
        "output_uri": "s3://a-bucket-of-some-length/out/",
        "files": listed,
        "files_left_out": 25,
        "unstaged": [],
        "metrics": {"energy_gev": {"min": 127.25, "max": 164.5}, "showers": 5000, "digest": "0" * 64},
        "resources": {"peak_memory_bytes": 4_000_000_000, "seconds": {"cpu": 620.0, "wall": 640.0}},
        "placed": None,
        "proof": {"state": "proven", "words": "Proven: the manifest bears the signature of this job."},
        "manifest": {"outputs": listed[:20]},
    }


def answers(count: int) -> dict[str, Any]:
    """Return what each address of the page answers with so many rows."""
    numbers = range(count)
    connection = {
        "conn_type": "oscar",
        "host": "https://oscar.a-cluster-with-a-long-name.example.org",
        "parts_title": "OSCAR services",
    }
    service = {"image": "ghcr.io/example/threedgan:1.2.3", "cpu": "2", "memory": "4Gi", "interlink_node_name": ""}
    return {
        "jobs": {"jobs": [job(number) for number in numbers], "comparison": None},
        "placements": {"placements": [placement(number) for number in numbers], "boxes": boxes() if count else []},
        "flow": {"places": [place(number) for number in numbers]},
        "targets": {"targets": [target(number) for number in range(min(count, 20))]},
        "health": {"connections": [{**connection, "conn_id": f"oscar_{number}"} for number in range(min(count, 50))]},
        "system": {"parts": [{**service, "name": f"service-{number}"} for number in range(min(count, 20))]},
        "result": result(0),
    }


@pytest.fixture
def answered(page: Any) -> Any:
    """A function that lets the page be answered as it is told: with data, a status, or not at all."""

    def answer(said: dict[str, Any] | int | None) -> None:
        page.unroute("**/oscar/ui/api/**")

        def handle(route: Any) -> None:
            name = urlsplit(route.request.url).path.rpartition("/")[2]
            if said is None:
                route.abort("connectionrefused")
            elif isinstance(said, int):
                route.fulfill(status=said, content_type="text/html", body="<h1>Bad Gateway</h1>")
            else:
                route.fulfill(content_type="application/json", body=json.dumps(said[name]))

        page.route("**/oscar/ui/api/**", handle)

    yield answer
    page.unroute("**/oscar/ui/api/**")


def picture(page: Any, name: str, width: int) -> None:
    """Keep a picture of the upper part of the page, and see that nothing runs out of it sideways."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=PICTURES / f"{name}.png")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    # Nor are columns hidden beyond the edge of a table: the last ones have the outcome and the buttons.
    regions = page.locator(".scroll:visible").evaluate_all("all => all.map(one => one.scrollWidth - one.clientWidth)")
    assert max(regions, default=0) <= 0
    assert page.faults == []


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("view", VIEWS)
def test_a_thousand_rows_fit(page, answered, view, width, theme):
    answered(answers(MANY))
    page.set_viewport_size({"width": width, "height": 900})
    opened(page, view, theme)
    rows = page.locator({"flow": ".place", "results": ".card"}.get(view, "tbody tr"))
    assert rows.count() >= (MANY // 6 if view == "results" else 70 if view == "health" else MANY)
    picture(page, f"many-{view}-{width}-{theme}", width)


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("view", VIEWS)
def test_an_empty_view_says_what_will_be_there(page, answered, view, width, theme):
    answered(answers(0))
    page.set_viewport_size({"width": width, "height": 900})
    opened(page, view, theme)
    playwright.expect(page.locator(".empty").first).to_be_visible()
    picture(page, f"empty-{view}-{width}-{theme}", width)


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(("said", "words"), [(None, "Airflow does not answer"), (502, "502")], ids=["away", "error"])
def test_an_airflow_that_does_not_answer_is_told_and_come_back_to(page, answered, said, words, width, theme):
    page.set_viewport_size({"width": width, "height": 900})
    answered(answers(0))
    opened(page, "flow", theme)
    answered(said)
    page.get_by_role("tab", name="Jobs").click()
    playwright.expect(page.locator("#trouble")).to_contain_text(words)
    playwright.expect(page.locator("#live-text")).to_have_text("Not up to date")
    picture(page, f"{'away' if said is None else 'error'}-{width}-{theme}", width)
    answered(answers(7))
    playwright.expect(page.locator("tbody tr")).to_have_count(7, timeout=PATIENCE)
    playwright.expect(page.locator("#live-text")).to_have_text("Live")
    # What was seen stays in sight when it goes away later.
    answered(said)
    playwright.expect(page.locator("#trouble")).to_contain_text(words, timeout=PATIENCE)
    assert page.locator("tbody tr").count() == 7
    picture(page, f"{'away' if said is None else 'error'}-later-{width}-{theme}", width)
    answered(answers(7))
    playwright.expect(page.locator("#trouble")).to_be_hidden(timeout=PATIENCE)


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("width", WIDTHS)
def test_two_results_with_five_hundred_files_each_fit_side_by_side_and_pass_axe(page, answered, axe, width, theme):
    page.set_viewport_size({"width": width, "height": 900})
    said = answers(12)
    answered(said)
    opened(page, "results", theme)
    page.locator(".card").nth(0).click()
    playwright.expect(page.locator("article.result")).to_have_count(1)
    answered({**said, "result": result(6)})
    page.locator(".card").nth(1).click()
    playwright.expect(page.locator("article.result")).to_have_count(2)
    playwright.expect(page.locator("article.result").first.get_by_role("heading").first).to_be_in_viewport()
    picture(page, f"compared-{width}-{theme}", width)
    assert axe_faults(page, axe) == []


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize(("name", "said"), [("many", answers(60)), ("empty", answers(0)), ("error", 502)])
@pytest.mark.parametrize("view", VIEWS)
def test_axe_finds_nothing_serious_in_any_state(page, answered, axe, view, name, said, theme):
    page.set_viewport_size({"width": 1024, "height": 900})
    answered(answers(0))
    opened(page, "results" if view != "results" else "jobs", theme)
    answered(said)
    page.get_by_role("tab", name=view.capitalize()).click()
    playwright.expect(page.locator("main")).not_to_have_attribute("aria-busy", "true")
    if name == "error":
        playwright.expect(page.locator("#trouble")).to_be_visible()
    assert axe_faults(page, axe) == []


def test_everything_is_done_with_the_keyboard_alone(page, answered):
    said = answers(12)
    answered(said)
    page.set_viewport_size({"width": 1024, "height": 900})
    opened(page, "jobs")
    page.keyboard.press("Tab")
    playwright.expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Tab")
    playwright.expect(page.get_by_role("tab", name="Jobs")).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    chip = page.get_by_role("button", name="Running and waiting")
    for _ in range(4):
        if chip.evaluate("element => element === document.activeElement"):
            break
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    playwright.expect(chip).to_have_attribute("aria-pressed", "true")
    playwright.expect(chip).to_be_focused()
    cancel = page.get_by_role("button", name="Cancel infer").first
    for _ in range(12):
        if cancel.evaluate("element => element === document.activeElement"):
            break
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    playwright.expect(cancel).to_have_text("Really cancel?")
    page.get_by_role("tab", name="Jobs").focus()
    page.keyboard.press("ArrowRight")
    card = page.locator(".card").first
    for _ in range(4):
        if card.evaluate("element => element === document.activeElement"):
            break
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    playwright.expect(page.locator("article.result")).to_be_visible()
    playwright.expect(page.locator(".card").first).to_be_focused()
