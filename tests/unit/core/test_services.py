# SPDX-License-Identifier: Apache-2.0
"""OSCAR service definitions: FDL in, API JSON out, and what differs from a server's copy."""

from __future__ import annotations

import copy
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.core.fdl import from_fdl, script_path
from airflow_provider_oscar.core.service_difference import difference
from airflow_provider_oscar.core.services import ServiceDefinition, StoragePath

FDL = """
functions:
  oscar:
  - default-cluster:
      name: threedgan
      memory: 1Gi
      cpu: 0.5
      image: ghcr.io/example/threedgan:1
      script: scripts/run.sh
      log_level: DEBUG
      environment:
        Variables:
          BATCH: 64
          FAST: true
        secrets:
          TOKEN: abc
      input:
      - storage_provider: webdav.dcache
        path: /data/in/
      output:
      - storage_provider: minio
        path: out
        suffix: [.h5]
  - hpc:
      name: threedgan-hpc
      image: docker://ghcr.io/example/threedgan:1
      script: scripts/run.sh
      interlink_node_name: vk-1
      annotations:
        slurm-job.vk.io/flags: "--time=10 --partition=gpu"
storage_providers:
  webdav:
    dcache: {hostname: door.example.org, login: u, password: p}
clusters:
  other: {endpoint: "https://oscar.example.org", auth_user: u, auth_password: p}
"""

nonsense = st.recursive(
    st.none() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["variables", "secrets", "path", "storage_provider", "suffix", "api_port", "x"]), inner
        )
    ),
    max_leaves=10,
)
foreign = st.dictionaries(
    st.sampled_from(["environment", "annotations", "input", "output", "expose", "storage_providers", "clusters"]),
    nonsense,
)


def read(path: str) -> str:
    return f"#!/bin/sh\r\necho {path}\r"


FULL = from_fdl(FDL, read)[0]


def service(**changes) -> ServiceDefinition:
    return ServiceDefinition(**({"name": "svc", "image": "image:1", "script": "true\n"} | changes))


def fdl(**fields) -> str:
    return json.dumps({"functions": {"oscar": [{"c": {"name": "svc", "image": "i", "script": "s.sh", **fields}}]}})


class TestFdl:
    def test_every_service_of_the_file_is_read(self):
        cloud, hpc = from_fdl(FDL, read)
        assert (cloud.name, cloud.cluster_id, cloud.cpu, cloud.memory) == ("threedgan", "", "0.5", "1Gi")
        assert (hpc.name, hpc.cluster_id, hpc.interlink_node_name) == ("threedgan-hpc", "hpc", "vk-1")

    def test_the_script_travels_as_text_with_unix_line_ends(self):
        assert from_fdl(FDL, read)[0].script == "#!/bin/sh\necho scripts/run.sh\n"

    def test_variables_of_either_spelling_become_text(self):
        assert from_fdl(FDL, read)[0].environment["variables"] == {"BATCH": "64", "FAST": "true"}

    def test_storage_providers_and_clusters_are_copied_into_each_service(self):
        for one in from_fdl(FDL, read):
            assert one.storage_providers["webdav"]["dcache"]["hostname"] == "door.example.org"
            assert "other" in one.clusters

    def test_paths_are_written_as_the_server_keeps_them(self):
        cloud = from_fdl(FDL, read)[0]
        assert cloud.inputs == (StoragePath(storage_provider="webdav.dcache", path="data/in"),)
        assert cloud.outputs == (StoragePath(storage_provider="minio.default", path="out", suffix=(".h5",)),)

    @pytest.mark.parametrize("path", ["../x", "/../x", "a/../../x", "", ".", "a\0b", "a\\b"])
    def test_a_script_outside_the_directory_is_refused(self, path):
        with pytest.raises(DefinitionError, match="does not lie below"):
            script_path(path)
        with pytest.raises(DefinitionError):
            from_fdl(fdl(script=path), read)

    @given(st.text())
    def test_an_accepted_script_path_stays_below(self, path):
        try:
            parts = script_path(path).removeprefix("/").split("/")
        except DefinitionError:
            return
        assert parts
        assert not {"", ".", ".."} & set(parts)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("a: [", "the FDL is not YAML"),
            ("- a", "the FDL is"),
            ("", "defines no service"),
            ("functions: {oscar: []}", "defines no service"),
            ("functions: 5", "functions is '5'"),
            ("functions: {oscar: {a: b}}", r"functions\.oscar is"),
            ("functions: {oscar: [5]}", r"functions\.oscar\[0\] is '5'"),
            ("functions: {oscar: [{c: 5}]}", r"functions\.oscar\[0\]\.c is '5'"),
            ("functions: {oscar: [{c: {name: a}}]}", "has no script"),
            ("functions: {oscar: [{c: {name: a, script: s}}]}", "'a' has no image"),
            ("functions: {oscar: [{c: {script: s, image: i}}]}", "has no name"),
            ("functions: {oscar: [{c: {name: a, image: i, script: [s]}}]}", "expected a text"),
        ],
    )
    def test_mistakes_are_named_with_their_place(self, text, message):
        with pytest.raises(DefinitionError, match=message):
            from_fdl(text, read)

    def test_the_same_service_twice_is_refused_and_on_two_clusters_is_not(self):
        one = "{name: a, image: i, script: s}"
        with pytest.raises(DefinitionError, match="'a' twice for cluster 'c'"):
            from_fdl(f"functions: {{oscar: [{{c: {one}}}, {{c: {one}}}]}}", read)
        assert len(from_fdl(f"functions: {{oscar: [{{c: {one}, d: {one}}}]}}", read)) == 2

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"memroy": "1Gi"}, "did you mean 'memory'"),
            ({"enable_gpu": "yes"}, "expected true or false"),
            ({"cpu": [1]}, "cpu is"),
            ({"environment": {"variables": {"A": [1]}}}, r"environment\.variables\.A"),
            ({"environment": 5}, "environment is no such thing; expected a mapping"),
            ({"input": {"path": "x"}}, "expected a list"),
            ({"input": [5]}, r"input\[0\] is '5'"),
            ({"output": [{"path": "a/b", "sufix": ["x"]}]}, "unknown field 'sufix'"),
        ],
        ids=str,
    )
    def test_fields_of_the_wrong_form_are_refused(self, fields, message):
        with pytest.raises(DefinitionError, match=message):
            from_fdl(fdl(**fields), read)

    def test_capitals_of_a_field_do_not_matter_and_null_says_nothing(self):
        body = from_fdl(fdl(VISIBILITY="public", vo=None), read)[0].to_api()
        assert (body["visibility"], "vo" in body) == ("public", False)


class TestValidation:
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"name": ""}, "expected a name of 1 to 39"),
            ({"name": "a" * 40}, "expected a name of 1 to 39"),
            ({"name": "A"}, "expected a name of 1 to 39"),
            ({"image": "a b"}, "without blanks"),
            ({"image": ""}, "without blanks"),
            ({"script": " \n"}, "the script is empty"),
            ({"cpu": "much"}, "cpu is 'much'"),
            ({"memory": "1GB"}, "memory is '1GB'"),
            ({"memory": "2048"}, "memory is '2048', which is a number of bytes to Kubernetes; write '2048Mi' for MiB"),
            ({"inputs": (StoragePath(storage_provider="minio", path=" / "),)}, "input path is empty"),
            ({"inputs": (StoragePath(storage_provider="s3", path="a/b"),)}, "no input of type 's3'"),
            ({"outputs": (StoragePath(storage_provider="ftp", path="a/b"),)}, "no output of type 'ftp'"),
            ({"inputs": (StoragePath(storage_provider="webdav.dcache", path="a"),)}, "under storage_providers"),
            ({"outputs": (StoragePath(storage_provider="minio.other", path="a/b"),)}, "under storage_providers"),
        ],
        ids=lambda value: str(value)[:40],
    )
    def test_what_the_server_would_refuse_is_refused_here(self, changes, message):
        with pytest.raises(DefinitionError, match=message):
            service(**changes)

    def test_two_inputs_in_one_bucket_are_refused(self):
        paths = (StoragePath(storage_provider="minio", path="svc/a"), StoragePath(storage_provider="minio", path="b"))
        with pytest.raises(DefinitionError, match="two inputs lie in one bucket"):
            service(inputs=paths)

    def test_secrets_are_not_shown(self):
        shown = repr(
            service(environment={"secrets": {"T": "hush"}}, storage_providers={"s3": {"a": {"secret_key": "hush"}}})
        )
        assert "hush" not in shown


class TestApi:
    def test_the_body_is_plain_json_with_text_where_the_server_wants_text(self):
        body = from_fdl(FDL, read)[0].to_api()
        assert json.loads(json.dumps(body)) == body
        assert body["cpu"] == "0.5"
        assert body["environment"] == {"variables": {"BATCH": "64", "FAST": "true"}, "secrets": {"TOKEN": "abc"}}
        assert body["output"] == [{"storage_provider": "minio.default", "path": "threedgan/out", "suffix": [".h5"]}]
        assert "cluster_id" not in body

    def test_a_definition_survives_the_way_through_its_body(self):
        for one in from_fdl(FDL, read):
            assert ServiceDefinition.from_dict(one.to_api()).to_api() == one.to_api()

    @pytest.mark.parametrize("port", [8080, [8080]], ids=["one", "list"])
    def test_ports_follow_the_version_of_the_server(self, port):
        one = service(expose={"api_port": port, "max_scale": 3})
        assert one.to_api()["expose"] == {
            "api_port": [8080], "max_scale": 3, "min_scale": 1, "cpu_threshold": 80, "health_path": "/",
        }  # fmt: skip
        assert one.to_api(scalar_ports=True)["expose"]["api_port"] == 8080

    @pytest.mark.parametrize("port", ["80", [], [True]], ids=str)
    def test_a_port_that_is_no_number_is_refused(self, port):
        with pytest.raises(DefinitionError, match=r"expose\.api_port is"):
            service(expose={"api_port": port}).to_api()

    def test_several_ports_need_a_newer_server(self):
        with pytest.raises(DefinitionError, match=r"before 4\.1 takes one"):
            service(expose={"nodePort": [1, 2]}).to_api(scalar_ports=True)


class TestDifference:
    @staticmethod
    def kept(one: ServiceDefinition) -> dict:
        """What a server of 4.1 returns for a definition."""
        body = copy.deepcopy(one.to_api())
        for path in (*body["input"], *body["output"]):
            if path["storage_provider"].startswith("minio.") and "/" not in path["path"]:
                path["path"] = f"{one.name}/{path['path']}"
            path |= {"prefix": path.get("prefix"), "suffix": path.get("suffix")}
        body["environment"]["secrets"] = dict.fromkeys(body["environment"]["secrets"], "")
        body.setdefault("storage_providers", {})["minio"] = {
            "default": {"access_key": "hidden", "secret_key": "hidden"}
        }
        body["labels"] |= {"oscar_service": one.name}
        return body | {"token": "t", "owner": "cluster_admin", "namespace": "oscar-svc", "visibility": "private"}

    def test_a_server_that_holds_ours_differs_in_nothing(self):
        for one in from_fdl(FDL, read):
            assert difference(one, self.kept(one)) == {}
        exposed = service(expose={"api_port": 80}, labels={"a": "b"})
        assert difference(exposed, self.kept(exposed)) == {}
        assert difference(exposed, self.kept(exposed) | {"expose": exposed.to_api(scalar_ports=True)["expose"]}) == {}

    @pytest.mark.parametrize(
        ("change", "field"),
        [
            ({"image": "other"}, "image"),
            ({"script": "false"}, "script"),
            ({"cpu": "2"}, "cpu"),
            ({"enable_gpu": True}, "enable_gpu"),
            ({"environment": {"Variables": {"A": "1"}}}, "environment.variables"),
            ({"environment": {"secrets": {"S": ""}}}, "environment.secrets"),
            ({"annotations": {"slurm-job.vk.io/flags": "--time=1"}}, "annotations"),
            ({"input": [{"storage_provider": "minio", "path": "a/b"}]}, "input"),
            ({"output": [5]}, "output"),
            ({"output": [{"path": "x/y", "new": 1}]}, "output"),
        ],
        ids=str,
    )
    def test_each_field_of_ours_is_compared(self, change, field):
        assert difference(service(), self.kept(service()) | change).keys() == {field}

    def test_foreign_annotations_and_labels_are_not_ours(self):
        theirs = self.kept(service()) | {"annotations": {"origin": "x"}, "labels": {"x": "y"}}
        assert difference(service(), theirs) == {}

    def test_a_label_of_ours_that_is_gone_is_seen(self):
        one = service(labels={"a": "b"})
        assert difference(one, self.kept(one) | {"labels": {}}).keys() == {"labels"}

    def test_an_exposed_service_that_is_hidden_is_seen(self):
        one = service(expose={"api_port": 80})
        assert difference(one, self.kept(one) | {"expose": None}).keys() == {"expose"}

    def test_changed_credentials_are_seen_and_not_shown(self):
        one = from_fdl(FDL, read)[0]
        theirs = self.kept(one)
        theirs["storage_providers"]["webdav"] = {
            "dcache": {"hostname": "door.example.org", "login": "u", "password": "old"}
        }
        found = difference(one, theirs)
        assert found.keys() == {"storage_providers"}
        assert "old" not in str(found)
        assert "'***'" in str(found)

    def test_hidden_credentials_are_no_difference(self):
        one = from_fdl(FDL, read)[0]
        theirs = self.kept(one)
        theirs["storage_providers"]["webdav"]["dcache"]["password"] = "hidden"
        theirs["clusters"]["other"]["auth_password"] = ""
        assert difference(one, theirs) == {}

    @given(foreign)
    def test_nonsense_from_a_server_is_a_difference_and_no_exception(self, theirs):
        assert "image" in difference(FULL, theirs)


def test_an_annotation_under_both_prefixes_is_sent_once_under_the_one_that_is_read(caplog):
    fields = {"name": "a", "image": "i", "script": "x"}
    both = {"job.vk.io/singularity-mounts": "--bind /old:/a", "slurm-job.vk.io/singularity-mounts": "--bind /new:/a"}
    for order in (both, dict(reversed(both.items()))):
        made = ServiceDefinition.from_dict({**fields, "annotations": order})
        assert made.annotations == {"slurm-job.vk.io/singularity-mounts": "--bind /new:/a"}
    assert "the other counts" in caplog.text


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"vo": []}, r"\.vo is '\[\]'; expected a text"),
        ({"visibility": {"a": 1}}, r"\.visibility is .*expected a text"),
        ({"alpine": "yes"}, r"\.alpine is 'yes'; expected true or false"),
        ({"allowed_users": {"a": 1}}, r"\.allowed_users is .*expected a list"),
        ({"synchronous": {"min_scale": "1"}}, r"\.synchronous\.min_scale is '1'; expected a whole number"),
    ],
)
def test_a_field_that_travels_as_it_is_has_its_type_all_the_same(fields, message):
    with pytest.raises(DefinitionError, match=message):
        ServiceDefinition.from_dict({"name": "a", "image": "i", "script": "x", **fields})


def test_numbers_and_single_names_become_what_the_server_wants():
    fields = {"total_memory": 2, "allowed_users": "a@egi.eu", "synchronous": {"min_scale": 1}, "alpine": True}
    body = ServiceDefinition.from_dict({"name": "a", "image": "i", "script": "x", **fields}).to_api()
    assert (body["total_memory"], body["allowed_users"], body["alpine"]) == ("2", ["a@egi.eu"], True)
