# SPDX-License-Identifier: Apache-2.0
"""The pods of interLink's own test set, as templates of our operator, on both kinds of virtual nodes.

By the templates of interlink-hq/vk-test-set (3404e2d): what each of them shows about a pod is shown here by the job of
an operator, in scripts of our own. Its template with a persistent volume claim is refused (``core/pod_merge.py``). The
nodes are as in ``test_scenarios.py``; the table in ``docs/conformance.md`` names these tests.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException
from kubernetes.client import V1ConfigMap, V1ObjectMeta, V1Secret
from oscar_testbed.errors import MissingPrerequisite
from oscar_testbed.fakes.slurm.real import RealSlurm, missing_programs

from airflow_provider_oscar.core.errors import LostContactError, TransientError
from airflow_provider_oscar.core.pod_options import PodOptions
from airflow_provider_oscar.core.slurm import SlurmOptions
from airflow_provider_oscar.hooks.interlink.hook import InterLinkHook
from airflow_provider_oscar.hooks.s3.hook import OscarS3Hook
from airflow_provider_oscar.operators.interlink import InterLinkPodOperator
from airflow_provider_oscar.placement.targets import PlacementTarget
from tests.system import scenarios, virtual_nodes
from tests.system.virtual_nodes import IMAGE, VirtualNodes

NODES = {"embedded": virtual_nodes.embedded, "real": virtual_nodes.upstream}
#: Containers of the embedded platform find their mounts below a directory of their own.
ROOT = 'R=${CONTAINER_SANDBOX_MOUNT_POINT:-}; cd "$TMP_OUTPUT_DIR"; '
SHARED = {"name": "shared", "emptyDir": {}}
CONFIGURED = {"name": "configured", "configMap": {"name": "site"}}
HIDDEN = {"name": "hidden", "secret": {"secretName": "site"}}
TEXT = "first line\n  second: 'quoted' \"twice\" $HOME `id`\n"
POD_NAME = "<name of the pod>"
WORD = "s3cret/with+signs=="
#: The kinds of values of upstream's template 105.
VALUES = {
    "PLAIN": "plain",
    "SINGLE": "it's",
    "DOUBLE": 'say "hello"',
    "BOTH": "'\"'\"",
    "JSON": '{"a": ["b", {"c": "d\'e"}]}',
    "BACKTICKS": "`id`",
    "DOLLAR": "$HOME ${HOME} $(id)",
    "BACKSLASH": "a\\b\\\\c\\n",
    "NEWLINE": "first\nsecond\n",
    "TABS": "a\tb",
    "EMPTY": "",
    "BLANKS": "  around  ",
    "COMMAS": "a,b;c|d&e",
    "EQUALS": "a=b=c",
    "HASH": "# no comment",
    "GLOB": "* ? [a-z] {x,y} ~",
    "UMLAUTS": "ü€漢",
}
PROGRAM = f"""\
import json, os
names = {sorted(VALUES)}
with open(os.path.join(os.environ["TMP_OUTPUT_DIR"], "done"), "w", encoding="utf-8", newline="") as file:
    json.dump([os.environb.get(name.encode(), b"?").decode() for name in names], file)
"""

pytestmark = pytest.mark.skipif(bool(missing_programs()), reason="SLURM is not installed")


def sh(script: str, **fields: object) -> dict[str, Any]:
    """A container that runs a script."""
    return {"name": "other", "image": IMAGE, "command": ["sh", "-c", script], **fields}


def job(script: str, **fields: object) -> dict[str, Any]:
    """The container of the job, which is the first."""
    return sh(ROOT + script, **{"name": "job", **fields})


def at(volume: str, path: str, **fields: object) -> dict[str, object]:
    """One mount."""
    return {"name": volume, "mountPath": path, **fields}


def key_of(kind: str) -> dict[str, object]:
    """A variable's source: one key of an object of the site."""
    return {kind: {"name": "site", "key": "WORD"}}


MOUNTED = "R=${CONTAINER_SANDBOX_MOUNT_POINT:-}; "
PROBE = {"exec": {"command": ["true"]}, "initialDelaySeconds": 1, "periodSeconds": 1}
WAIT = "n=0; until [ -s {0} ] || [ $n -gt 300 ]; do sleep 0.1; n=$((n+1)); done; "
#: Each template's ``spec``, and what the job's output ``done`` has to hold.
FORMS: dict[str, tuple[dict[str, Any], str]] = {
    "000-hello-world": ({"containers": [job('echo "$0 $1" > done', args=["hello", "two words"])]}, "hello two words\n"),
    "010-simple-python": (
        {
            "containers": [
                {
                    "name": "job",
                    "image": IMAGE,
                    "command": ["python3", "-c"],
                    "args": [
                        "import os\nopen(os.environ['TMP_OUTPUT_DIR'] + '/done', 'w').write('ü \"$HOME\" `id`\\n')\n"
                    ],
                }
            ]
        },
        'ü "$HOME" `id`\n',
    ),
    "020-python-env": (
        {"containers": [job('echo "$A $B" > done', env=[{"name": "A", "value": "1"}, {"name": "B", "value": "2 3"}])]},
        "1 2 3\n",
    ),
    "030-simple-shared-volume": (
        {
            "containers": [
                job(
                    'echo word > "$R/out/word"; ' + WAIT.format('"$R/back/word"') + 'cp "$R/back/word" done',
                    volumeMounts=[at("shared", "/out"), at("back", "/back")],
                ),
                sh(
                    MOUNTED
                    + WAIT.format('"$R/in/word"')
                    + 'cp "$R/in/word" "$R/to/.word"; mv "$R/to/.word" "$R/to/word"',
                    volumeMounts=[at("back", "/to"), at("shared", "/in", readOnly=True)],
                ),
            ],
            "volumes": [SHARED, {"name": "back", "emptyDir": {}}],
        },
        "word\n",
    ),
    "040-config-volumes": (
        {
            "containers": [
                job(
                    'cat "$R/conf/text" "$R/hid/WORD" > done; : > "$R/one/x"; : > "$R/two/x"',
                    volumeMounts=[
                        at("two", "/two"),
                        at("hidden", "/hid"),
                        at("one", "/one"),
                        at("configured", "/conf"),
                    ],
                )
            ],
            "volumes": [{"name": "one", "emptyDir": {}}, CONFIGURED, {"name": "two", "emptyDir": {}}, HIDDEN],
        },
        TEXT + WORD,
    ),
    "050-limits": (
        {
            "containers": [
                job(
                    'echo "$SLURM_CPUS_PER_TASK $SLURM_MEM_PER_NODE" > done',
                    resources={"limits": {"cpu": "2", "memory": "128Mi"}},
                )
            ]
        },
        "2 128\n",
    ),
    "060-init-container": (
        {
            "initContainers": [sh(MOUNTED + 'echo made > "$R/data/word"', volumeMounts=[at("shared", "/data")])],
            "containers": [job('cp "$R/data/word" done', volumeMounts=[at("shared", "/data")])],
            "volumes": [SHARED],
        },
        "made\n",
    ),
    "065-multi-init": (
        {
            "initContainers": [
                sh(MOUNTED + f'echo {name} >> "$R/data/word"', name=name, volumeMounts=[at("shared", "/data")])
                for name in ("one", "two", "three")
            ],
            "containers": [job('cp "$R/data/word" done', volumeMounts=[at("shared", "/data")])],
            "volumes": [SHARED],
        },
        "one\ntwo\nthree\n",
    ),
    "070-rclone-bind": (
        {
            "initContainers": [
                sh(
                    MOUNTED + 'cp "$R/conf/text" "$R/data/rclone.conf"',
                    name="config",
                    volumeMounts=[at("configured", "/conf"), at("shared", "/data")],
                )
            ],
            "containers": [
                job(
                    WAIT.format('"$R/data/bound"') + 'cp "$R/data/bound" done',
                    volumeMounts=[at("shared", "/data", mountPropagation="HostToContainer")],
                ),
                sh(
                    MOUNTED + 'cp "$R/data/rclone.conf" "$R/data/.b"; mv "$R/data/.b" "$R/data/bound"; sleep 60',
                    securityContext={"privileged": True},
                    volumeMounts=[at("shared", "/data")],
                ),
            ],
            "volumes": [CONFIGURED, SHARED],
        },
        TEXT,
    ),
    "080-env-from-objects": (
        {
            "containers": [
                job(
                    'printf "%s %s" "$URL" "$PASSWORD" > done',
                    env=[
                        {"name": "URL", "valueFrom": key_of("configMapKeyRef")},
                        {"name": "PASSWORD", "valueFrom": key_of("secretKeyRef")},
                    ],
                )
            ]
        },
        "https://site.example " + WORD,
    ),
    "085-env-from-secrets": (
        {
            "containers": [
                job(
                    'printf "%s %s %s" "$WORD" "$P_WORD" "${ABSENT-unset}" > done',
                    envFrom=[
                        {"secretRef": {"name": "site"}},
                        {"prefix": "P_", "secretRef": {"name": "site"}},
                        {"secretRef": {"name": "is-not-there", "optional": True}},
                    ],
                )
            ]
        },
        f"{WORD} {WORD} unset",
    ),
    "086-one-secret-key": (
        {
            "containers": [
                job('printf %s "$TOKEN" > done', env=[{"name": "TOKEN", "valueFrom": key_of("secretKeyRef")}])
            ]
        },
        WORD,
    ),
    "090-probes": (
        {"containers": [job("sleep 2; echo > done", startupProbe=PROBE, readinessProbe=PROBE, livenessProbe=PROBE)]},
        "\n",
    ),
    "095-default-entrypoint": (
        {"containers": [job("echo > done"), {"name": "other", "image": IMAGE, "args": ["sh", "-c", "true"]}]},
        "\n",
    ),
    "100-failing-container-beside": ({"containers": [job("sleep 1; echo > done"), sh("exit 42")]}, "\n"),
    "105-env-quotes": (
        {
            "containers": [
                {
                    "name": "job",
                    "image": IMAGE,
                    "command": ["python3", "-c", PROGRAM],
                    "env": [{"name": name, "value": value} for name, value in VALUES.items()],
                }
            ]
        },
        json.dumps([VALUES[name] for name in sorted(VALUES)]),
    ),
    "110-job-without-restarts": (
        {"containers": [job("echo > done")], "restartPolicy": "Never", "terminationGracePeriodSeconds": 5},
        "\n",
    ),
    "115-lifecycle-hooks": (
        {
            "containers": [
                job(
                    "echo > done",
                    lifecycle={
                        "postStart": {"exec": {"command": ["true"]}},
                        "preStop": {"exec": {"command": ["true"]}},
                    },
                )
            ]
        },
        "\n",
    ),
    "120-projected-volumes": (
        {
            "containers": [job('cat "$R/p/text" "$R/p/name" > done', volumeMounts=[at("all", "/p", readOnly=True)])],
            "volumes": [
                {
                    "name": "all",
                    "projected": {
                        "sources": [
                            {"configMap": {"name": "site"}},
                            {"downwardAPI": {"items": [{"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}]}},
                        ]
                    },
                }
            ],
        },
        TEXT + POD_NAME,
    ),
}


@pytest.fixture(scope="module", params=list(NODES))
def nodes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VirtualNodes]:
    """Virtual nodes of one kind, over a SLURM of their own."""
    slurm = RealSlurm(tmp_path_factory.mktemp("c"))
    slurm.start()
    try:
        with NODES[request.param](tmp_path_factory.mktemp("n"), slurm) as found:
            yield found
    except MissingPrerequisite as error:
        pytest.skip(str(error))
    finally:
        slurm.stop()


@pytest.fixture
def site(nodes: VirtualNodes, monkeypatch: pytest.MonkeyPatch) -> Iterator[InterLinkHook]:
    """The cluster, with a ConfigMap and a Secret of the user's."""
    for name, value in nodes.environment().items():
        monkeypatch.setenv(name, value)
    hook = InterLinkHook()
    meta = V1ObjectMeta(name="site")
    hook.core.create_namespaced_secret(hook.namespace, V1Secret(metadata=meta, string_data={"WORD": WORD}))
    hook.core.create_namespaced_config_map(
        hook.namespace, V1ConfigMap(metadata=meta, data={"text": TEXT, "WORD": "https://site.example"})
    )
    yield hook
    hook.core.delete_namespaced_secret("site", hook.namespace)
    hook.core.delete_namespaced_config_map("site", hook.namespace)


def task_of(spec: Mapping[str, Any]) -> InterLinkPodOperator:
    """The operator of a template, which gives image, command and limits too."""
    template = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "template"}, "spec": dict(spec)}
    slurm = SlurmOptions(time="10")
    target = PlacementTarget(name="hpc-cpu", task_id="x", kind="interlink", node=virtual_nodes.NODE, slurm=slurm)
    return InterLinkPodOperator(
        task_id="run",
        target=target,
        output_uri="s3://outgoing/results",
        pod_options=PodOptions(pod_template_dict=template),
        timeout=300,
        poll_interval=0.5,
        deferrable=False,
    )


@pytest.mark.parametrize("form", FORMS)
def test_each_pod_of_the_test_set_runs_as_a_job_and_is_proven(request, site, form):
    spec, wanted = FORMS[form]
    found = task_of(spec).execute(scenarios.make_context(request))
    assert (found["exit_code"], [each["key"] for each in found["outputs"]]) == (0, ["done"])
    got = OscarS3Hook().read_bytes(found["output_uri"] + "done", 10_000).decode()
    # The name of the pod is known when it runs.
    assert got == wanted.replace(POD_NAME, found["submission_id"])


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("exit 42", "exit code 42"),
        ("no-such-program", "exit code 127"),
        ("exec python3 -c \"raise ValueError('no theta')\"", "no theta"),
    ],
    ids=["exit", "not-found", "exception"],
)
def test_a_job_of_the_test_set_that_fails_is_no_success_though_all_beside_it_do(request, site, script, says):
    spec = {"containers": [job(script), sh("true")]}
    with pytest.raises(AirflowFailException, match=says):
        task_of(spec).execute(scenarios.make_context(request))


def test_an_init_container_that_fails_is_no_success_whatever_is_said_of_the_pod(request, site):
    """Over SLURM 23.02 and later, interLink's plugin reads its exit code as 0 and calls the pod Succeeded."""
    task = task_of({"initContainers": [sh("echo no licence; exit 5")], "containers": [job("echo never > done")]})
    task.manifest_grace = timedelta(seconds=5)
    with pytest.raises((LostContactError, TransientError), match="InitContainer other failed with status 5"):
        task.execute(scenarios.make_context(request))
