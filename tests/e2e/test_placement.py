# SPDX-License-Identifier: Apache-2.0
"""Placement by clicking: a choice that is forced, a benchmark of the targets, and work that its target lost."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import quote

import kubernetes
import pytest

from tests.support.oscar_page import PATIENCE, PICTURES, ROOT, connections, opened, wait_until

playwright = pytest.importorskip("playwright.sync_api")

pytestmark = pytest.mark.timeout(1800)
SAMPLE = "s3://threedgan/in/electrons-100-200.h5"
WIDTHS = (390, 1024, 1600)


def click_trigger(page: Any, dag: str, **fields: str) -> str:
    """Fill the trigger form as a person does, press Trigger, and return the id of the run that Airflow made."""
    page.set_viewport_size({"width": 1500, "height": 1300})
    page.goto(f"/dags/{dag}")
    page.get_by_role("button", name="Trigger").first.click(timeout=PATIENCE)
    form = page.get_by_role("dialog")
    choice = fields.pop("placement", "")
    for name, value in fields.items():
        form.locator(f"[name=element_{name}]").fill(value)
        form.locator(f"[name=element_{name}]").blur()
    if choice:
        form.get_by_role("combobox").last.click()
        page.get_by_role("option", name=choice).click()
    PICTURES.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=PICTURES / f"trigger-{dag}.png")
    with page.expect_response(
        lambda answer: answer.url.endswith("/dagRuns") and answer.request.method == "POST"
    ) as made:
        form.get_by_role("button", name="Trigger").last.click()
    assert made.value.ok, made.value.text()
    return str(made.value.json()["dag_run_id"])


def ended(page: Any, dag: str, run_id: str, seconds: float = 600) -> str:
    """Wait for the end of a run; return its state."""
    address = f"/api/v2/dags/{dag}/dagRuns/{quote(run_id, safe='')}"
    wait_until(lambda: page.request.get(address).json()["state"] in ("success", "failed"), seconds)
    return str(page.request.get(address).json()["state"])


def test_a_choice_that_is_forced_in_the_form_is_where_the_job_runs(page):
    run_id = click_trigger(page, "threedgan_inference", object_uri=SAMPLE, placement="Supercomputer, on CPUs (SLURM)")
    assert ended(page, "threedgan_inference", run_id) == "success"
    page.goto(f"/dags/threedgan_inference/runs/{quote(run_id, safe='')}/plugin/oscar_run")
    rows = page.frame_locator("iframe").locator("tbody tr")
    playwright.expect(rows).to_have_count(1, timeout=PATIENCE)
    playwright.expect(rows).to_contain_text("hpc-cpu")
    opened(page, "placements")
    decision = page.locator("tbody tr").filter(has_text="hpc-cpu").first
    playwright.expect(decision).to_contain_text("named by the run")


def test_the_benchmark_is_started_by_clicking_and_its_run_shows_table_and_figure(page):
    run_id = click_trigger(page, "threedgan_benchmark", object_uri=SAMPLE, repetitions="2")
    assert ended(page, "threedgan_benchmark", run_id, 900) == "success"
    run = f"/dags/threedgan_benchmark/runs/{quote(run_id, safe='')}"
    page.goto(f"{run}/plugin/oscar_run")
    frame = page.frame_locator("iframe")
    table = frame.get_by_role("region", name="Seconds of the command at each target")
    for target in ("cloud-cpu", "hpc-cpu", "hpc-gpu"):
        row = table.get_by_role("row").filter(has_text=target)
        playwright.expect(row.get_by_role("cell").nth(1)).to_have_text("2", timeout=PATIENCE)
    figure = frame.get_by_role("img", name=re.compile(r"^run\. .*cloud-cpu: median"))
    playwright.expect(figure).to_be_visible()
    playwright.expect(frame.locator("tbody tr").filter(has_text="Succeeded")).to_have_count(6)
    page.screenshot(path=PICTURES / "benchmark-in-airflow.png", full_page=True)
    for theme in ("light", "dark"):
        page.evaluate(f"localStorage.setItem('theme', '{theme}')")
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 900})
            address = f"/oscar/ui/?dag_id=threedgan_benchmark&run_id={quote(run_id, safe='')}"
            # Another address each time: to the same one the browser would not go again.
            page.goto(f"{address}&visit={theme}-{width}#jobs")
            playwright.expect(page.get_by_role("img", name=re.compile(r"^run\. "))).to_be_visible(timeout=PATIENCE)
            page.screenshot(path=PICTURES / f"benchmark-{width}-{theme}.png", full_page=True)
            assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.evaluate("localStorage.setItem('theme', 'light')")
    # What the task wrote beside the results, with the talk's figures as a reference.
    page.set_viewport_size({"width": 1500, "height": 950})
    page.goto(f"{run}/tasks/compare/xcom")
    playwright.expect(page.get_by_text(re.compile("faster than the first")).first).to_be_visible(timeout=PATIENCE)
    assert page.faults == []


def test_work_that_its_target_lost_is_done_elsewhere_and_its_result_tells_so(page):
    shutil.copy(Path(__file__).with_name("placed_elsewhere.py"), ROOT / ".demo" / "up" / "dags")
    wait_until(lambda: page.request.get("/api/v2/dags/placed_elsewhere").ok)
    kube_config = json.loads(connections()["interlink_default"]["extra"]["kube_config_secret"])
    client = kubernetes.client.CoreV1Api(kubernetes.config.new_client_from_config_dict(kube_config))
    before = {pod.metadata.name for pod in client.list_pod_for_all_namespaces().items}
    run_id = click_trigger(page, "placed_elsewhere", object_uri=SAMPLE)

    def running() -> list[Any]:
        pods = client.list_pod_for_all_namespaces().items
        return [pod for pod in pods if pod.metadata.name not in before and pod.status.phase == "Running"]

    wait_until(lambda: bool(running()))
    (pod,) = running()
    client.delete_namespaced_pod(pod.metadata.name, pod.metadata.namespace, grace_period_seconds=0)
    assert ended(page, "placed_elsewhere", run_id) == "success"
    page.set_viewport_size({"width": 1024, "height": 900})
    task = quote("work.elsewhere", safe="")
    page.goto(f"/oscar/ui/?dag_id=placed_elsewhere&run_id={quote(run_id, safe='')}&task_id={task}&view=results")
    story = page.get_by_role("list", name="How it came to its target")
    playwright.expect(story).to_contain_text("hpc-cpu failed it", timeout=PATIENCE)
    playwright.expect(story).to_contain_text("cloud-cpu chosen by Fallback")
    playwright.expect(page.locator(".verdict-proven")).to_be_visible()
    answer = page.request.get(page.locator(".files a").first.get_attribute("href"))
    assert answer.ok
    page.screenshot(path=PICTURES / "placed-elsewhere.png", full_page=True)
