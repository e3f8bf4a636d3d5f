# SPDX-License-Identifier: Apache-2.0
"""The metadata that every ``import airflow`` reads; a fault in it would break all Airflow commands.

Keeps row T7 of the threat model true (docs/security.md).
"""

from __future__ import annotations

import ast
import inspect
import json
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, get_args

import airflow
import jsonschema
import pytest
from airflow.api_fastapi.core_api.datamodels.connections import ConnectionResponse

from airflow_provider_oscar import get_provider_info as module
from airflow_provider_oscar.get_provider_info import get_provider_info
from airflow_provider_oscar.hooks.dcache import settings as dcache
from airflow_provider_oscar.hooks.dcache.settings import AuthMode
from airflow_provider_oscar.hooks.s3 import settings as s3
from airflow_provider_oscar.plugins.connection_test import CONNECTION_TYPES

INFO: dict[str, Any] = get_provider_info()
AIRFLOW = Path(airflow.__file__).parent


def _named(value: str) -> Any:
    module_name, _, name = value.rpartition(".")
    return getattr(import_module(module_name), name)


def test_metadata_fits_the_schema_of_the_running_airflow():
    jsonschema.validate(INFO, json.loads((AIRFLOW / "provider_info.schema.json").read_text()))


@pytest.mark.parametrize("connection", INFO["connection-types"], ids=lambda each: each["connection-type"])
def test_connection_form_fits_the_schema_that_the_running_airflow_does_not_check(connection):
    schema = json.loads((AIRFLOW / "provider.yaml.schema.json").read_text())
    items = schema["properties"]["connection-types"]["items"]
    jsonschema.validate(connection, {**items, "definitions": schema.get("definitions", {})})


@pytest.mark.parametrize("connection", INFO["connection-types"], ids=lambda each: each["connection-type"])
def test_hook_and_metadata_agree_on_the_connection_type(connection):
    hook = _named(connection["hook-class-name"])
    assert hook.conn_type == connection["connection-type"]
    assert hook.hook_name == connection["hook-name"]
    assert hook.conn_name_attr in inspect.signature(hook).parameters
    assert callable(hook.test_connection)


def _holds_a_secret(name: str) -> bool:
    return (any(word in name for word in ("secret", "password", "kube_config")) or name.endswith("token")) and (
        not name.endswith("_path")
    )


def test_no_field_that_holds_a_secret_is_shown_in_clear():
    shown = [
        f"{connection['connection-type']}.{name}"
        for connection in INFO["connection-types"]
        for name, field in connection["conn-fields"].items()
        # A field of several lines is shown, but Airflow sends it masked once it is saved: see the next test.
        if _holds_a_secret(name) and field["schema"].get("format") not in ("password", "multiline")
    ]
    assert shown == []


@pytest.mark.parametrize("connection", INFO["connection-types"], ids=lambda each: each["connection-type"])
def test_airflow_answers_no_secret_of_the_extra_through_its_api(connection):
    secrets = {name: "in-clear" for name in connection["conn-fields"] if _holds_a_secret(name)}
    answer = ConnectionResponse(
        conn_id="c", conn_type=connection["connection-type"], description=None, host=None, login=None, schema=None,
        port=None, password=None, extra=json.dumps(secrets), team_name=None,
    )  # fmt: skip
    assert secrets
    assert "in-clear" not in answer.extra


def test_types_whose_test_button_is_mended_are_those_without_a_port():
    portless = {
        each["connection-type"]
        for each in INFO["connection-types"]
        if "port" in each["ui-field-behaviour"]["hidden-fields"]
    }
    assert portless == CONNECTION_TYPES


def test_metadata_module_imports_nothing():
    tree = ast.parse(Path(module.__file__).read_text())
    assert [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)] == []


def test_metadata_is_readable_without_airflow():
    program = (
        "import sys; from airflow_provider_oscar.get_provider_info import get_provider_info; get_provider_info();"
        "print([name for name in sys.modules if name == 'airflow' or name.startswith('airflow.')])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def _class_paths() -> list[str]:
    found = [each["class-name"] for each in INFO["task-decorators"]] + INFO["extra-links"] + INFO["cli"]
    return found + [each[kind] for each in INFO["asset-uris"] for kind in ("handler", "factory")]


@pytest.mark.parametrize("path", _class_paths())
def test_every_named_class_exists(path):
    assert callable(_named(path))


@pytest.mark.parametrize(
    "name",
    [
        name
        for kind in ("hooks", "operators", "sensors", "triggers")
        for each in INFO[kind]
        for name in each["python-modules"]
    ]
    + INFO["filesystems"],
)
def test_every_named_module_imports(name):
    import_module(name)


def test_airflow_loads_the_provider_from_its_entry_point():
    from airflow.providers_manager import ProvidersManager

    manager = ProvidersManager()
    assert manager.providers["airflow-provider-oscar"].data["name"] == INFO["name"]
    assert {each["connection-type"] for each in INFO["connection-types"]} <= set(manager.hooks)


def test_configuration_defaults_are_what_airflow_reads(monkeypatch):
    monkeypatch.delenv("AIRFLOW__OSCAR__DEFER_AFTER")
    from airflow.configuration import conf

    for name, option in INFO["config"]["oscar"]["options"].items():
        assert conf.get("oscar", name) == option["default"]


def test_file_system_is_found_through_its_entry_points():
    import fsspec
    import upath.registry

    from airflow_provider_oscar.hooks.dcache.filesystem import DCacheFileSystem, DCachePath

    assert fsspec.get_filesystem_class("dcache") is DCacheFileSystem
    assert upath.registry.get_upath_class("dcache") is DCachePath


#: Words of other providers' connections that are read as well: Amazon's, Kubernetes'.
NOT_OURS = {"endpoint_url", "kube_config", "disable_verify_ssl"}
PACKAGE = Path(module.__file__).parent


def _words_of_the_extra(path: Path) -> Iterator[str]:
    """Yield what is looked up in something called ``extra``, or asked of a function together with it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Subscript):
            subjects, words = [node.value], [node.slice]
        elif isinstance(node, ast.Call):
            subjects, words = [node.func, *node.args], node.args
            if isinstance(node.func, ast.Attribute):
                subjects.append(node.func.value)
        else:
            continue
        if any(ast.unparse(each).endswith(("extra", "extra_dejson", "extra_field")) for each in subjects):
            texts = (word.value for word in words if isinstance(word, ast.Constant))
            yield from (text for text in texts if isinstance(text, str) and text.isidentifier())


@cache
def _texts_of_the_code() -> set[str]:
    """Whole texts in the code, but for the metadata."""
    return {
        node.value
        for path in PACKAGE.rglob("*.py")
        if path.name != "get_provider_info.py"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }


@pytest.mark.parametrize("connection", INFO["connection-types"], ids=lambda each: each["connection-type"])
def test_form_offers_every_extra_that_the_hook_reads_and_none_that_nobody_reads(connection):
    hook = PACKAGE.joinpath(*connection["hook-class-name"].split(".")[1:3])
    read = {word for path in hook.rglob("*.py") for word in _words_of_the_extra(path)}
    assert len(read) > 3
    assert read - set(connection["conn-fields"]) <= NOT_OURS
    assert set(connection["conn-fields"]) - read <= _texts_of_the_code()
    assert all(field["description"] for field in connection["conn-fields"].values())


def _form(connection_type: str) -> dict[str, Any]:
    (form,) = (each for each in INFO["connection-types"] if each["connection-type"] == connection_type)
    return dict(form["conn-fields"])


def test_choices_and_defaults_of_the_forms_are_those_of_the_settings():
    assert sorted(_form("dcache")["auth"]["schema"]["enum"]) == sorted(AuthMode)
    assert sorted(_form("oscar_s3")["addressing_style"]["schema"]["enum"]) == sorted(get_args(s3.AddressingStyle))
    connect, read = (_form("dcache")[f"{kind}_timeout"]["description"] for kind in ("connect", "read"))
    assert connect.endswith(f" {dcache.CONNECT_TIMEOUT:.0f} if empty.")
    assert s3.CONNECT_TIMEOUT == dcache.CONNECT_TIMEOUT
    assert f" {s3.READ_TIMEOUT:.0f} for S3 and {dcache.READ_TIMEOUT:.0f} for dCache " in read


def test_form_says_what_a_service_token_cannot_do():
    assert "neither lists, reads nor cancels" in _form("oscar")["auth_type"]["description"]
