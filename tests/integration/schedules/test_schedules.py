# SPDX-License-Identifier: Apache-2.0
"""Every schedule that a DAG author knows, as the example DAGs write it, in a real Airflow beside the embedded platform.

All objects are uploaded once; each test then looks at the runs of one DAG. Sources differ as well: buckets, a dCache
directory, the result of a job, and what is posted to Airflow's REST API.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from typing import Any, TypeVar
from urllib.parse import quote

import pytest
from oscar_testbed import LocalPlatform
from oscar_testbed.process import wait_until
from oscar_testbed.standalone import StandaloneAirflow

from airflow_provider_oscar.core.services import ServiceDefinition
from airflow_provider_oscar.hooks.dcache import DCacheHook
from airflow_provider_oscar.hooks.oscar.hook import OscarHook
from airflow_provider_oscar.hooks.s3.hook import OscarS3Hook
from airflow_provider_oscar.jobs.sealing import with_key
from airflow_provider_oscar.jobs.signing import Signer
from airflow_provider_oscar.jobs.start_script import service_script
from tests.integration.conftest import PLAIN_IMAGE, ROOT

T = TypeVar("T")
# boto3 leaves its pooled connections to the garbage collector.
pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
PATIENCE = 240.0
TEXTS = {
    "each/a b ü.txt": 1,
    "each/b.txt": 2,
    "each/ignored.dat": 9,
    **{f"batch/{number}.txt": number for number in range(4)},
    "group/run_1.dat": 1,
    "group/run_2.json": 1,
    "group/run_1.json": 1,
    **{f"asset/{number}.txt": number for number in range(5)},
    "any/images/a": 1,
    "all/images/a": 1,
    "all/images/b": 2,
    "all/calibrations/c": 3,
    **{f"or_time/{number}.txt": number for number in range(3)},
    **{f"mapped/{number}.txt": number + 1 for number in range(3)},
    "places/a.txt": 1,
    "chain/words.txt": 1,
}


#: The service's key follows from it, so that both this process and Airflow must have the same.
SIGNING_KEY = "schedules"


def text(lines: int) -> bytes:
    """Return a text of so many lines, with two words each."""
    return b"two words\n" * lines


@pytest.fixture(scope="module")
def platform(running_platform: LocalPlatform) -> Iterator[LocalPlatform]:
    """The platform behind the default connections, with buckets, a directory, a service, and all objects."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in running_platform.environment().items():
            patch.setenv(name, value)
        for bucket in ("incoming", "archive", "results"):
            running_platform.s3.create_bucket(bucket)
        s3, dcache, oscar = OscarS3Hook(), DCacheHook(), OscarHook()
        dcache.make_directory("/data/places")
        script = service_script()
        definition = ServiceDefinition(name="count-words", image=PLAIN_IMAGE, script=script)
        oscar.run(oscar.apply_service(with_key(definition, Signer.from_setting(SIGNING_KEY))))
        for key, lines in TEXTS.items():
            s3.put_bytes("incoming", key, text(lines))
        s3.put_bytes("archive", "places/b.txt", text(2))
        dcache.put_bytes("/data/places", "c.dat", text(3))
        yield running_platform


@pytest.fixture(scope="module")
def airflow(platform: LocalPlatform, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandaloneAirflow]:
    """Airflow with the example DAGs; the one that runs each morning runs each minute."""
    directory = tmp_path_factory.mktemp("airflow")
    (directory / "dags").mkdir()
    for path in (ROOT / "dags").glob("schedule_*.py"):
        shutil.copy(path, directory / "dags")
    files = directory / "dags" / "schedule_files.py"
    get_text = files.read_text().replace("file:///data/in", (directory / "files").as_uri())
    files.write_text(get_text.replace('"quiet_period": 10', '"quiet_period": 2'))
    (directory / "files" / "sub").mkdir(parents=True)
    timed = directory / "dags" / "schedule_asset_or_time.py"
    timed.write_text(timed.read_text().replace("0 6 * * *", "* * * * *"))
    settings = {
        **platform.environment(),
        "AIRFLOW__OSCAR__SIGNING_KEY": SIGNING_KEY,
        "AIRFLOW__OSCAR__POLL_INTERVAL": "1",
        # A busy machine answers Airflow's own calls later than its 5 s; no run is to fail of that.
        "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "60",
        "AIRFLOW__CORE__DEFAULT_TASK_RETRIES": "3",
        "AIRFLOW__CORE__DEFAULT_TASK_RETRY_DELAY": "1",
    }
    made = StandaloneAirflow(directory, dags=directory / "dags", environment=settings, parallelism=3)
    made.start()
    try:
        yield made
    finally:
        made.stop()


def runs(airflow: StandaloneAirflow, dag_id: str) -> list[dict[str, Any]]:
    """The successful runs of a DAG, oldest first; a failed one ends the test."""
    answer = airflow.get(f"dags/{dag_id}/dagRuns", limit=100, order_by="run_after") or {"dag_runs": []}
    found = answer["dag_runs"]
    assert [run["dag_run_id"] for run in found if run["state"] == "failed"] == []
    return [run for run in found if run["state"] == "success"]


def results(airflow: StandaloneAirflow, dag_id: str, task_id: str) -> list[Any]:
    """What a task returned in each successful run."""
    return [airflow.xcom(dag_id, run["dag_run_id"], task_id) for run in runs(airflow, dag_id)]


def awaited(look: Callable[[], T], enough: Callable[[T], bool], what: str) -> T:
    """Look until it is enough, and return what was seen."""
    seen: list[T] = []

    def is_there() -> bool:
        seen[:] = [look()]
        return enough(seen[0])

    wait_until(is_there, what=what, timeout=PATIENCE, interval=1.0)
    return seen[0]


def merged(found: list[Any]) -> dict[str, int]:
    """The lines of each object; an object that two runs counted is an error."""
    pairs = [pair for each in found for pair in (each or {}).items()]
    assert len({uri for uri, _ in pairs}) == len(pairs)
    return dict(pairs)


def lines(airflow: StandaloneAirflow, dag_id: str, expected: dict[str, int]) -> list[Any]:
    """Wait until the runs of a DAG have counted what is expected, once each; return what each returned."""
    return awaited(
        lambda: results(airflow, dag_id, "count_lines"),
        lambda found: merged(found) == expected,
        f"the runs of {dag_id} count {expected}",
    )


def uris(prefix: str) -> dict[str, int]:
    """Uploaded texts below a prefix, by URI."""
    return {f"s3://incoming/{key}": count for key, count in TEXTS.items() if key.startswith(prefix)}


def test_each_object_has_a_run(airflow):
    expected = {"s3://incoming/each/a%20b%20%C3%BC.txt": 1, "s3://incoming/each/b.txt": 2}
    assert len(lines(airflow, "schedule_each", expected)) == 2


def test_a_batch_is_full_or_old(airflow):
    found = lines(airflow, "schedule_batch", uris("batch/"))
    assert sorted(map(len, found)) == [1, 3]


def test_a_group_has_a_run_when_it_is_complete(airflow):
    found = awaited(lambda: results(airflow, "schedule_group", "list_members"), bool, "a group is complete")
    assert found == [{"names": ["group/run_1.dat", "group/run_1.json"], "complete": True}]


def test_an_asset_schedule_gets_all_objects_once(airflow):
    lines(airflow, "schedule_asset", uris("asset/"))


def test_any_of_two_assets_is_enough(airflow):
    lines(airflow, "schedule_asset_any", uris("any/"))


def test_all_of_two_assets_make_a_run_with_all_their_objects(airflow):
    lines(airflow, "schedule_asset_all", uris("all/"))


def test_assets_or_time_make_runs_and_every_object_is_in_one_of_them(airflow):
    lines(airflow, "schedule_asset_or_time", uris("or_time/"))
    kinds = awaited(
        lambda: {run["run_type"] for run in runs(airflow, "schedule_asset_or_time")},
        lambda found: len(found) == 2,
        "runs by asset and by time",
    )
    assert kinds == {"asset_triggered", "scheduled"}
    lines(airflow, "schedule_asset_or_time", uris("or_time/"))


def test_a_task_is_mapped_over_what_is_new(airflow):
    found = awaited(lambda: results(airflow, "schedule_mapped", "add_up"), lambda seen: sum(seen) >= 6, "lines")
    assert sum(found) == 6


def test_two_buckets_and_a_dcache_directory_feed_one_dag(airflow):
    expected = {
        "s3://incoming/places/a.txt": 1,
        "s3://archive/places/b.txt": 2,
        "dcache://dcache_default/data/places/c.dat": 3,
    }
    assert len(lines(airflow, "schedule_places", expected)) == 3


def test_the_result_of_a_job_is_the_input_of_the_next_dag(airflow):
    assert awaited(lambda: results(airflow, "schedule_chain_second", "read_count"), bool, "a chained run") == [2]
    (first,) = runs(airflow, "schedule_chain_first")
    (second,) = runs(airflow, "schedule_chain_second")
    assert second["dag_run_id"] != first["dag_run_id"]


def test_each_version_of_a_file_of_a_directory_has_a_run(airflow):
    folder = airflow.directory / "files"
    names = {"a.txt": 1, "sub/b ü+%.txt": 2, "sub/c=1.txt": 0}
    for name, count in names.items():
        (folder / name).write_bytes(text(count))
    (folder / "left out.dat").write_bytes(text(9))
    expected = {f"{folder.as_uri()}/{quote(name)}": count for name, count in names.items()}
    lines(airflow, "schedule_files", expected)
    (folder / "a.txt").write_bytes(text(7))  # another version
    awaited(
        lambda: [each for each in results(airflow, "schedule_files", "count_lines") if each],
        lambda found: {f"{folder.as_uri()}/a.txt": 7} in found and len(found) == 4,
        "the run of the new version",
    )


@pytest.mark.parametrize("key", [None, "mine", "s3://incoming/posted/s3.txt"], ids=["none", "own", "uri"])
def test_an_object_posted_to_the_rest_api_is_the_object_of_its_run(airflow, platform, key):
    name = f"posted/{'s3' if key and '://' in key else key}.txt"
    OscarS3Hook().put_bytes("incoming", name, text(7))
    asset = airflow.get("assets", name_pattern="s3://incoming/each")["assets"][0]
    extra = {} if key and "://" in key else {"uri": f"s3://incoming/{name}"}
    body = {"asset_id": asset["id"], "extra": extra}
    airflow.post("assets/events", body if key is None else {**body, "partition_key": key})
    awaited(
        lambda: merged(results(airflow, "schedule_each", "count_lines")),
        lambda found: found.get(f"s3://incoming/{name}") == 7,
        f"the run of {name}",
    )
