# SPDX-License-Identifier: Apache-2.0
"""The provider's page in a headless browser, over the demo: what it shows, how it fits, whether all can use it."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import boto3
import httpx
import kubernetes
import pytest

from tests.support.oscar_page import PATIENCE, PICTURES, ROOT, axe_faults, connections, opened, wait_until

playwright = pytest.importorskip("playwright.sync_api")

VIEWS = ("flow", "placements", "jobs", "results", "health")
WIDTHS = (390, 1024, 1600)
#: Name of a file that would run a script in a page that takes it for HTML.
HOSTILE = "<img src=x onerror=window.owned=1>broken.h5"

#: With the start of Airflow and of the jobs, which a busy machine draws out.
pytestmark = pytest.mark.timeout(1800)


@pytest.fixture(scope="module")
def job_done(page: Any, airflow: dict[str, Any]) -> None:
    """Drop some more samples, small and large, and one broken file; wait until each has a job that ended."""
    directory = ROOT / ".demo" / "up"
    page.goto("/oscar/ui/#jobs")
    playwright.expect(page.locator("#live-text")).to_have_text("Live", timeout=PATIENCE)
    if page.locator("tbody tr").filter(has_text="broken.h5").count():
        return  # an Airflow that an earlier session of tests left running
    connection = connections()["oscar_s3_default"]
    store = boto3.client(
        "s3", endpoint_url=connection["host"], region_name="us-east-1",
        aws_access_key_id=connection["login"], aws_secret_access_key=connection["password"],
    )  # fmt: skip
    samples = sorted((directory / "input").rglob("*.h5"), key=lambda path: path.stat().st_size)
    for path in [*samples[:2], samples[-1]]:
        store.upload_file(str(path), "threedgan", f"in/more-{path.name}")
    store.put_object(Bucket="threedgan", Key=f"in/{HOSTILE}", Body=b"not HDF5")
    shutil.copy(Path(__file__).with_name("placed_sleep.py"), directory / "dags")
    wait_until(lambda: page.request.get("/api/v2/dags/placed_sleep").ok)
    for target in ("cloud-cpu", "hpc-cpu"):
        trigger(page, target=target, seconds=1)
    page.goto("/oscar/ui/#jobs")
    playwright.expect(page.locator("td .state-success")).to_have_count(6, timeout=400_000)
    broken = page.locator("tbody tr").filter(has_text="broken.h5")
    playwright.expect(broken.locator(".state-failed").first).to_be_visible(timeout=400_000)


def trigger(page: Any, **conf: Any) -> str:
    """Start a run of the DAG that sleeps; return its run id."""
    answer = page.request.post("/api/v2/dags/placed_sleep/dagRuns", data={"logical_date": None, "conf": conf})
    assert answer.ok, answer.text()
    return answer.json()["dag_run_id"]


def jobs_in_cloud() -> dict[str, Any]:
    """What OSCAR itself says, asked without the provider."""
    stored = connections()["oscar_default"]
    url = f"{stored['host']}/system/logs/threedgan"
    return httpx.get(url, auth=(stored["login"], stored["password"])).json().get("jobs") or {}


def pods_on_hpc() -> set[str]:
    """What Kubernetes itself says, asked without the provider."""
    kube_config = json.loads(connections()["interlink_default"]["extra"]["kube_config_secret"])
    client = kubernetes.client.CoreV1Api(kubernetes.config.new_client_from_config_dict(kube_config))
    return {pod.metadata.name for pod in client.list_pod_for_all_namespaces().items}


def open_result(page: Any, number: int = 0) -> None:
    page.locator(".card").filter(has_text="Succeeded").filter(has_text="3 outputs").nth(number).click()
    playwright.expect(page.locator("article.result").nth(number)).to_be_visible(timeout=PATIENCE)
    pictures = page.locator(".pictures img")
    playwright.expect(pictures.first).to_be_visible()
    pictures.evaluate_all("images => Promise.all(images.map(image => image.decode()))")


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("view", VIEWS)
def test_each_view_fits_each_width(page, job_done, view, width, theme):
    page.set_viewport_size({"width": width, "height": 900})
    opened(page, view, theme)
    if view == "results":
        open_result(page)
    if view == "health":
        playwright.expect(page.get_by_role("region", name="Virtual nodes")).to_be_visible(timeout=PATIENCE)
    PICTURES.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=PICTURES / f"{view}-{width}-{theme}.png", full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.faults == []


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("view", VIEWS)
def test_axe_finds_nothing_serious(page, job_done, axe, view, theme):
    page.set_viewport_size({"width": 1024, "height": 900})
    opened(page, view, theme)
    if view == "results":
        open_result(page)
    assert axe_faults(page, axe) == []


def test_the_page_is_in_airflows_navigation_and_opens_there(page, job_done):
    page.set_viewport_size({"width": 1500, "height": 950})
    page.goto("/plugin/oscar")
    frame = page.frame_locator("iframe")
    playwright.expect(frame.get_by_text("Succeeded").first).to_be_visible(timeout=PATIENCE)
    page.screenshot(path=PICTURES / "in-airflow.png")
    frame.get_by_role("link", name=re.compile("infer")).first.click()
    page.wait_for_url(re.compile(r"/dags/threedgan_inference/runs/"))


def test_tabs_are_walked_with_the_arrow_keys(page, job_done):
    opened(page, "flow")
    page.get_by_role("tab", name="Flow").focus()
    page.keyboard.press("ArrowRight")
    playwright.expect(page.get_by_role("tab", name="Placements")).to_be_focused()
    page.keyboard.press("End")
    playwright.expect(page.get_by_role("tab", name="Health")).to_have_attribute("aria-selected", "true")


def test_an_output_is_downloaded_through_its_link(page, job_done):
    opened(page, "results")
    open_result(page)
    link = page.locator(".files a").first.get_attribute("href")
    answer = page.request.get(link)
    assert answer.ok
    assert len(answer.body()) > 100
    assert not answer.url.startswith(page.url.partition("/oscar")[0])
    picture = page.locator(".pictures img").first
    playwright.expect(picture).to_be_visible()
    assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") > 50


def test_two_results_are_compared_side_by_side(page, job_done):
    page.set_viewport_size({"width": 1600, "height": 1000})
    opened(page, "results")
    open_result(page, 0)
    open_result(page, 1)
    left, right = (page.locator("article.result").nth(number).bounding_box() for number in (0, 1))
    assert (left["y"], left["width"]) == (right["y"], right["width"])
    page.screenshot(path=PICTURES / "results-compared.png")


def test_a_run_shows_its_own_jobs_in_a_tab(page, job_done):
    opened(page, "jobs")
    url = page.get_by_role("link", name=re.compile("infer")).first.get_attribute("href")
    page.goto(url.partition("/tasks/")[0] + "/plugin/oscar_run")
    rows = page.frame_locator("iframe").locator("tbody tr")
    playwright.expect(rows).to_have_count(1, timeout=PATIENCE)
    page.screenshot(path=PICTURES / "tab-of-run.png")


def test_the_output_link_of_a_task_opens_its_result(page, job_done):
    opened(page, "jobs")
    row = page.locator("tbody tr").filter(has_text="Succeeded").filter(has_text="infer").first
    task = row.get_by_role("link", name=re.compile("infer")).get_attribute("href")
    page.goto(f"{task}/details")
    link = page.get_by_role("link", name="Output").or_(page.get_by_role("button", name="Output")).first
    playwright.expect(link).to_be_visible(timeout=PATIENCE)
    page.goto(link.get_attribute("href"))
    playwright.expect(page.locator("article.result")).to_be_visible(timeout=PATIENCE)


def test_a_row_keeps_its_focus_while_the_list_is_looked_at_again(page, job_done):
    opened(page, "jobs")
    button = page.get_by_role("button", name=re.compile("Result of")).first
    button.focus()
    with page.expect_response(re.compile("/oscar/ui/api/jobs")):
        pass
    playwright.expect(button).to_be_focused()


@pytest.mark.parametrize(
    ("target", "task", "jobs"), [("cloud-cpu", "in_cloud", jobs_in_cloud), ("hpc-cpu", "on_hpc", pods_on_hpc)]
)
def test_a_running_job_is_cancelled_where_it_runs_before_the_page_says_so(page, viewer, job_done, target, task, jobs):
    page.set_viewport_size({"width": 1500, "height": 950})
    before = set(jobs())
    run_id = trigger(page, target=target, seconds=900)
    wait_until(lambda: bool(set(jobs()) - before))
    (job,) = set(jobs()) - before
    opened(page, "jobs")
    row = page.locator("tbody tr").filter(has_text=task).first
    playwright.expect(row.locator(".state-deferred, .state-running")).to_be_visible(timeout=PATIENCE)
    playwright.expect(row).to_contain_text(target)
    opened(viewer, "jobs")
    theirs = viewer.locator("tbody tr").filter(has_text=task).first
    playwright.expect(theirs.locator(".state-deferred, .state-running")).to_be_visible(timeout=PATIENCE)
    playwright.expect(theirs.get_by_role("button")).to_have_count(0)
    cancel = row.get_by_role("button", name=f"Cancel {task}")
    cancel.click()
    playwright.expect(cancel).to_have_text("Really cancel?")
    assert job in jobs()
    cancel.click()
    playwright.expect(row).to_contain_text(re.compile("^.*Cancelled: .* has it no more"), timeout=2 * PATIENCE)
    page.screenshot(path=PICTURES / f"cancelled-{task}.png")
    assert job not in jobs()
    playwright.expect(row.locator(".state-failed")).to_be_visible(timeout=PATIENCE)
    found = page.request.get(f"/api/v2/dags/placed_sleep/dagRuns/{run_id}/taskInstances/{task}").json()
    assert (found["state"], found["note"]) == ("failed", "Cancelled on the OSCAR page")


def test_a_viewer_sees_all_but_connections_and_changes_nothing(viewer, job_done):
    for view, words in (("flow", "threedgan"), ("placements", "cloud-cpu"), ("jobs", "Succeeded")):
        opened(viewer, view)
        playwright.expect(viewer.locator("main")).to_contain_text(words, timeout=PATIENCE)
    opened(viewer, "results")
    open_result(viewer)
    answer = viewer.request.get(viewer.locator(".files a").first.get_attribute("href"))
    assert answer.ok
    opened(viewer, "health")
    playwright.expect(viewer.locator("main")).to_contain_text(
        "Your role in Airflow does not allow you to see connections."
    )
    viewer.screenshot(path=PICTURES / "health-of-a-viewer.png")
    assert viewer.request.post("/api/v2/dags/placed_sleep/dagRuns", data={"logical_date": None}).status == 403
    assert viewer.faults == []


def test_a_forged_manifest_is_shown_as_not_proven(page, job_done):
    opened(page, "results")
    open_result(page)
    playwright.expect(page.locator(".verdict-proven")).to_be_visible()
    place = page.locator("dt", has_text="Outputs at").locator("xpath=../dd").inner_text()
    name = page.locator("dt", has_text="Job").first.locator("xpath=../dd").inner_text()
    stored = connections()["oscar_s3_default"]
    store = boto3.client(
        "s3", endpoint_url=stored["host"], region_name="us-east-1",
        aws_access_key_id=stored["login"], aws_secret_access_key=stored["password"],
    )  # fmt: skip
    bucket, _, prefix = place.removeprefix("s3://").partition("/")
    key = f"{prefix.rstrip('/')}/manifest.json" if name in prefix else f"{prefix.rstrip('/')}/{name}/manifest.json"
    genuine = store.get_object(Bucket=bucket, Key=key)["Body"].read()
    forged = json.loads(genuine)
    forged["metrics"] = {"showers": 1_000_000}
    store.put_object(Bucket=bucket, Key=key, Body=json.dumps(forged).encode())
    try:
        opened(page, "results")
        open_result(page)
        playwright.expect(page.locator(".verdict-refuted")).to_contain_text("Not proven")
        assert "1000000" not in page.locator("article.result").inner_text()
        page.screenshot(path=PICTURES / "forged.png")
    finally:
        store.put_object(Bucket=bucket, Key=key, Body=genuine)


def test_a_hostile_name_is_text_everywhere(page, job_done):
    for view in ("flow", "placements", "jobs"):
        opened(page, view)
        playwright.expect(page.get_by_text("broken.h5").first).to_be_visible(timeout=PATIENCE)
        assert page.locator("img[src=x]").count() == 0
        assert page.evaluate("window.owned") is None
    row = page.locator("tbody tr").filter(has_text="broken.h5").filter(has=page.locator(".state-failed")).first
    page.goto(row.get_by_role("link").first.get_attribute("href"))
    # The log: first the sentence that matters.
    playwright.expect(page.get_by_text(re.compile("exit code 65")).first).to_be_visible(timeout=2 * PATIENCE)
    page.screenshot(path=PICTURES / "log-of-failed-task.png")
    assert page.evaluate("window.owned") is None


def test_health_shows_targets_services_and_nodes(page, job_done):
    opened(page, "health")
    for table, row in (
        ("Placement targets", "hpc-cpu"),
        ("OSCAR services", "threedgan"),
        ("Virtual nodes", "slurm-cpu"),
    ):
        region = page.get_by_role("region", name=table)
        playwright.expect(region.get_by_role("row").filter(has_text=row).first).to_be_visible(timeout=PATIENCE)
    playwright.expect(page.get_by_role("region", name="Placement targets")).to_contain_text("Takes work")


def test_the_whole_way_of_an_object_is_one_line(page, job_done):
    opened(page, "flow")
    line = page.locator(".events > li").filter(has_text="electrons-100-200.h5")
    playwright.expect(line.locator(".way li.done")).to_have_count(5)
    playwright.expect(line.locator(".took")).to_have_count(4)


def test_connections_are_checked_from_the_health_view(page, job_done):
    opened(page, "health")
    page.get_by_role("button", name="Check oscar_default").click()
    row = page.get_by_role("row").filter(has_text="oscar_default")
    playwright.expect(row.get_by_text(re.compile("OSCAR"))).to_be_visible(timeout=PATIENCE)
