# SPDX-License-Identifier: Apache-2.0
"""YAML whose aliases stand for more than a machine holds is refused wherever YAML is read.

Keeps row T11 of the threat model true (docs/security.md).
"""

from __future__ import annotations

import argparse
import json

import pytest
import yaml
from airflow.sdk import Connection
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_oscar.cli.cluster import import_config
from airflow_provider_oscar.cli.import_dcnios import _document
from airflow_provider_oscar.core import bounded_yaml
from airflow_provider_oscar.core.bounded_yaml import load_yaml
from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.core.fdl import from_fdl
from airflow_provider_oscar.core.pod_options import PodOptions
from airflow_provider_oscar.hooks.interlink.hook import InterLinkHook
from airflow_provider_oscar.operators.interlink import InterLinkPodOperator
from airflow_provider_oscar.placement.targets import PlacementTarget

#: Each line stands for nine times what the one before it does: 9 to the 8 values in 400 bytes.
BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefg", "bcdefgh", strict=True)
)
#: The same by merging keys.
MERGED = "a: &a {k: x}\n" + "".join(
    f"{name}: &{name} {{<<: [{', '.join([f'*{before}'] * 9)}]}}\n"
    for before, name in zip("abcdefg", "bcdefgh", strict=True)
)
SERVICE = "functions:\n  oscar:\n  - c: {name: one, image: i, script: s, environment: {variables: {A: *h}}}\n"


def fdl(text, _):
    from_fdl(text + SERVICE, lambda path: "true")


def oscar_cli(text, path):
    path.write_text(text + "oscar: {c: {endpoint: *h}}\n")
    import_config(argparse.Namespace(file=str(path), overwrite=False, debug=False))


def dcnios(text, path):
    path.write_text(text)
    _document(path)


def pod_template(text, path):
    path.write_text(text + "spec: *h\n")
    target = PlacementTarget(name="hpc", kind="interlink", node="vk")
    options = PodOptions(pod_template_file=str(path))
    InterLinkPodOperator(
        task_id="t", image="i", command=["true"], output_uri="s3://b/out", target=target, pod_options=options
    ).template()


def kube_config(text, _):
    extra = json.dumps({"kube_config": text + "clusters: *h\n"})
    InterLinkHook(connection=Connection(conn_id="i", conn_type="interlink", extra=extra)).list_pods()


@pytest.mark.parametrize("text", [BOMB, MERGED, "a: &h [*h]\n"], ids=["lists", "merged keys", "a list within itself"])
@pytest.mark.parametrize("read", [fdl, oscar_cli, dcnios, pod_template, kube_config])
def test_aliases_of_aliases_are_refused_before_anything_is_made_of_them(read, text, tmp_path):
    with pytest.raises((DefinitionError, SystemExit)) as raised:
        read(text, tmp_path / "file.yaml")
    if read is not kube_config:  # whose text holds keys
        assert "aliases make more than" in str(raised.value) or "holds itself" in str(raised.value)


def test_an_fdl_is_told_the_line_and_what_to_do():
    with pytest.raises(DefinitionError, match="line 6: 'aliases make more than 100000 values of it'; write the values"):
        fdl(BOMB, None)


def test_a_document_without_aliases_may_be_longer(monkeypatch):
    monkeypatch.setattr(bounded_yaml, "VALUE_LIMIT", 10)
    assert load_yaml("[1, [2, 3, 4], 5, 6, 7, 8, {9: 10, 11: 12}, 13]")
    with pytest.raises(ValueError, match="aliases make more than 10 values"):
        load_yaml("[&a [1, 2, 3], *a, *a]")


def test_what_nests_too_deeply_is_an_error_of_the_document():
    with pytest.raises(ValueError, match="nests too deeply"):
        load_yaml("[" * 1000 + "]" * 1000)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_all_else_is_read_as_the_safe_loader_reads_it(value):
    text = yaml.safe_dump([value, value])
    assert load_yaml(text) == yaml.safe_load(text)
