# SPDX-License-Identifier: Apache-2.0
"""Packages of a function: installed once on the worker, unpacked where the job runs, without an index there."""

from __future__ import annotations

import hashlib
import io
import sys
import tarfile
from pathlib import Path

import pytest
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowFailException

from airflow_provider_oscar.core.errors import DefinitionError, JobFailedError
from airflow_provider_oscar.decorators.interlink import interlink_task
from airflow_provider_oscar.decorators.oscar import oscar_task
from airflow_provider_oscar.jobs.environment import Requirements, make_archive, requirement_lines, version_of_image
from tests.support.fakes import OUTPUT
from tests.support.functions import HPC, task_of, value_of
from tests.support.wheels import make_wheel

HERE = f"{sys.version_info[0]}.{sys.version_info[1]}"


@pytest.fixture
def index(tmp_path, monkeypatch):
    """All that pip knows."""
    folder = tmp_path / "index"
    folder.mkdir()
    make_wheel(folder, "tinyrules", "1.0", {"tinyrules/__init__.py": "from tinybase import x\nanswer = x + 1\n"},
               requires="tinybase")  # fmt: skip
    make_wheel(folder, "tinybase", "2.0", {"tinybase.py": "x = 41\n"})
    make_wheel(folder, "onlynew", "1.0", {"onlynew.py": ""}, tag="cp312-cp312-manylinux_2_28_x86_64")
    make_wheel(folder, "toonew", "1.0", {"toonew.py": ""}, tag="cp312-cp312-manylinux_2_38_x86_64")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.mark.usefixtures("runs", "index")
def test_function_imports_what_came_along_and_so_do_processes_it_starts(store):
    def compute():
        import subprocess
        import sys

        import tinyrules

        code = "import tinyrules; print(tinyrules.answer)"
        return [tinyrules.answer, int(subprocess.check_output([sys.executable, "-c", code])), tinyrules.__file__]

    (answer, below, place), _ = value_of(compute, requirements=["tinyrules==1.0"], python_version=HERE)
    assert (answer, below) == (42, 42)
    assert "/environment-" in place


def environments(store):
    return [key for key in store.puts if key.endswith(".tar.gz")]


@pytest.mark.usefixtures("runs")
def test_environment_is_made_once_for_equal_requirements(store, index, monkeypatch):
    def compute():
        import tinyrules

        return tinyrules.answer

    wanted = {"python_version": HERE, "requirements": ["tinybase", "tinyrules"]}
    assert value_of(compute, **wanted)[0] == 42
    (made,) = environments(store)
    assert made.startswith("results/.airflow-oscar-environments/")
    for wheel in index.iterdir():
        wheel.unlink()
    wanted["requirements"] = ["tinyrules", "tinybase"]
    assert value_of(compute, **wanted)[0] == 42
    assert environments(store) == [made]


@pytest.mark.usefixtures("runs", "index")
def test_other_python_than_was_said_is_told_by_the_job(store):
    def compute():
        return 1

    with pytest.raises(AirflowFailException, match=rf"were installed for Python 3\.9, and the image has {HERE}"):
        value_of(compute, requirements=["tinybase"], python_version="3.9")


@pytest.mark.parametrize(
    ("decorator", "arguments", "words"),
    [
        (interlink_task, {"image": "docker://site/own"}, "say python_version"),
        (oscar_task, {"service": "s"}, "say python_version"),
        (interlink_task, {"image": "docker://python:3.9-slim", "python_version": "3.12"}, "its image is of Python 3.9"),
        (
            interlink_task,
            {"image": "docker://python:3.9", "requirements": ["a\n--index-url=x"]},
            "is not a requirement",
        ),
    ],
)
def test_what_cannot_fit_is_told_in_the_dag_file(decorator, arguments, words):
    def compute():
        return 1

    known = {"output_uri": OUTPUT, "requirements": ["x"]}
    if decorator is interlink_task:
        known["target"] = HPC
    with pytest.raises(DefinitionError, match=words), DAG("dag", schedule=None):
        decorator(compute, **known | arguments)()


@pytest.mark.parametrize(
    ("image", "version"),
    [
        ("docker://python:3.12-slim", "3.12"),
        ("python:3.9.1", "3.9"),
        ("docker.io/library/python:3.11", "3.11"),
        ("my-python:3.12", ""),
        ("site/image:3.12", ""),
        ("/images/python.sif", ""),
    ],
)
def test_name_of_an_image_says_its_python(image, version):
    assert version_of_image(image) == version


def test_wheels_are_chosen_for_the_python_and_the_system_of_the_image(index, tmp_path):
    names = members(Requirements(("onlynew",), "3.12"), tmp_path / "a")
    assert "onlynew.py" in names
    with pytest.raises(DefinitionError, match=r"as wheels for Python 3\.11 on x86_64"):
        members(Requirements(("onlynew",), "3.11"), tmp_path / "b")
    with pytest.raises(DefinitionError, match=r"glibc 2\.28"):
        members(Requirements(("toonew",), "3.12"), tmp_path / "c")
    with pytest.raises(DefinitionError, match="No matching distribution found for absent"):
        members(Requirements(("absent==9",), "3.12"), tmp_path / "d")


def members(requirements, folder):
    folder.mkdir()
    with tarfile.open(fileobj=io.BytesIO(make_archive(requirements, folder).read_bytes())) as archive:
        return archive.getnames()


def test_equal_environments_are_equal_files(index, tmp_path):
    contents = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        contents.append(make_archive(Requirements(("tinyrules",), HERE), tmp_path / name).read_bytes())
    assert contents[0] == contents[1]


def test_digest_depends_on_what_is_installed_alone():
    base = Requirements(("a", "b"), "3.12")
    assert base.digest == Requirements(("b", "a"), "3.12").digest
    others = [
        Requirements(("a",), "3.12"),
        Requirements(("a", "b"), "3.11"),
        Requirements(("a", "b"), "3.12", "aarch64"),
    ]
    assert len({each.digest for each in [base, *others]}) == 4


@pytest.mark.usefixtures("runs")
def test_cloudpickle_carries_what_pickle_cannot(store, index):
    import cloudpickle

    version = cloudpickle.__version__
    code = {f"cloudpickle/{path.name}": path.read_text() for path in files_of(cloudpickle)}
    make_wheel(index, "cloudpickle", version, code)

    def apply(function):
        return lambda x: function(x) + 1

    made, _ = value_of(apply, lambda x: x * 2, serializer="cloudpickle", python_version=HERE)
    assert made(20) == 41


def files_of(module):
    return sorted(Path(module.__file__).parent.glob("*.py"))


def test_cloudpickle_for_another_python_is_refused_in_the_dag_file():
    def compute(x):
        return x

    for version in ("3.8", ""):
        with pytest.raises(DefinitionError, match="needs the same Python on both sides"):
            task_of(compute, 1, serializer="cloudpickle", python_version=version)


@pytest.mark.usefixtures("index")
def test_function_on_the_worker_has_its_packages_too(monkeypatch):
    monkeypatch.setenv("AIRFLOW__OSCAR__RUN_FUNCTIONS_LOCALLY", "True")

    def compute():
        import tinyrules

        return tinyrules.answer

    assert value_of(compute, requirements=["tinyrules"], python_version="3.8")[0] == 42


@pytest.mark.usefixtures("runs", "index")
def test_failure_of_an_import_is_in_the_error_of_the_task(store):
    def compute():
        import absent_package
        import tinyrules

        return tinyrules, absent_package

    with pytest.raises((AirflowFailException, JobFailedError), match="No module named 'absent_package'"):
        value_of(compute, requirements=["tinyrules"], python_version=HERE)


@pytest.mark.parametrize("good", [True, False])
def test_hashes_of_a_compiled_requirements_file_are_held_to(index, tmp_path, good):
    (wheel,) = index.glob("tinybase-*.whl")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest() if good else "1" * 64
    hashes = "".join(f" \\\n    --hash=sha256:{each}" for each in ("0" * 64, digest))
    text = f"# by pip-compile\ntinybase==2.0{hashes}\n    # via x\n"
    wanted = Requirements(requirement_lines(text), HERE, "x86_64")
    if good:
        with tarfile.open(make_archive(wanted, tmp_path)) as archive:
            assert "tinybase.py" in archive.getnames()
    else:
        with pytest.raises(DefinitionError, match="DO NOT MATCH THE HASHES"):
            make_archive(wanted, tmp_path)


@pytest.mark.parametrize("line", ["-r other.txt", "-c /etc/constraints.txt", "--requirement=x", "-e ."])
def test_a_requirement_that_names_a_file_of_this_machine_is_refused_in_the_dag_file(line):
    with pytest.raises(DefinitionError, match="names a file of this machine"):
        Requirements(("numpy", line), HERE, "x86_64")
