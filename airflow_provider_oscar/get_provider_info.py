# SPDX-License-Identifier: Apache-2.0
"""Provider metadata, read by Airflow while ``import airflow`` runs: this module imports nothing.

A fault here would break every Airflow command of the environment, so ``tests/unit`` validates the
result with the two JSON schemas that Airflow ships (``provider_info.schema.json`` and the connection
types of ``provider.yaml.schema.json``). Since nothing is imported, what the code says as well stands here
once more: the tests compare fields with the extras that the hooks read, choices and defaults with the settings.
"""

_PACKAGE = "airflow_provider_oscar"


def _text(label: str, description: str, **schema: object) -> dict[str, object]:
    return {
        "label": label,
        "description": description,
        "schema": {"type": ["string", "null"], **schema},
    }


def _flag(label: str, description: str, default: bool) -> dict[str, object]:
    return {
        "label": label,
        "description": description,
        "schema": {"type": ["boolean", "null"], "default": default},
    }


_VERIFY = _text(
    "Verify TLS",
    "true, false, or the path of a CA bundle (a hashed directory such as /etc/grid-security/certificates for dCache).",
)

_TIMEOUTS = {
    name: {"label": label, "description": text, "schema": {"type": ["number", "null"], "exclusiveMinimum": 0}}
    for name, label, text in (
        ("connect_timeout", "Connect timeout", "Seconds to reach the server; 10 if empty."),
        (
            "read_timeout",
            "Read timeout",
            "Seconds between two bytes of an answer; 60 for S3 and 150 for dCache if empty.",
        ),
    )
}

_OSCAR = {
    "connection-type": "oscar",
    "hook-class-name": f"{_PACKAGE}.hooks.oscar.OscarHook",
    "hook-name": "OSCAR",
    "ui-field-behaviour": {
        "hidden-fields": ["port", "schema", "extra"],
        "relabeling": {"host": "OSCAR endpoint", "login": "User", "password": "Password"},
        "placeholders": {"host": "https://oscar.example.org", "login": "oscar"},
    },
    "conn-fields": {
        "auth_type": _text(
            "Authentication",
            "basic (user and password), oidc (access or refresh token), or service_token: the password is a service's "
            "token, which starts jobs but neither lists, reads nor cancels them, so the operators need another one.",
            enum=["basic", "oidc", "service_token"],
            default="basic",
        ),
        "oidc_token": _text("OIDC access token", "Used as it is when no refresh token is given.", format="password"),
        "refresh_token": _text("OIDC refresh token", "Exchanged for access tokens as needed.", format="password"),
        "token_endpoint": _text("OIDC token endpoint", "URL that exchanges the refresh token."),
        "client_id": _text("OIDC client id", "Client that the refresh token was issued to."),
        "oidc_agent_account": _text(
            "oidc-agent account", "Asks the oidc-agent of this machine for access tokens; for work from a terminal."
        ),
        "scopes": _text("OIDC scopes", "Blank-separated; empty for the token's own."),
        "verify": _VERIFY,
        "timeout": {
            "label": "Timeout",
            "description": "Seconds for one request; creating a service restarts MinIO and takes longer by itself.",
            "schema": {"type": ["number", "null"], "default": 60, "minimum": 1},
        },
        "allow_plain_specifications": _flag(
            "Allow plain specifications",
            "For servers before 3.4, which keep no secrets: jobs' presigned URLs can then be read in the pods' EVENT.",
            False,
        ),
    },
}

_DCACHE = {
    "connection-type": "dcache",
    "hook-class-name": f"{_PACKAGE}.hooks.dcache.DCacheHook",
    "hook-name": "dCache / WebDAV",
    "ui-field-behaviour": {
        "hidden-fields": ["port", "schema", "extra"],
        "relabeling": {"host": "WebDAV URL", "login": "User", "password": "Password"},
        "placeholders": {"host": "https://dcache.example.org:2880", "login": "for basic authentication"},
    },
    "conn-fields": {
        "frontend_url": _text(
            "Frontend URL",
            "REST frontend with events and namespace, for example https://dcache.example.org:3880; "
            "empty for a plain WebDAV server.",
        ),
        "auth": _text(
            "Authentication",
            "basic, token (the token below), token_file, wlcg (bearer token discovery), macaroon, x509, or none.",
            enum=["basic", "token", "token_file", "wlcg", "macaroon", "x509", "none"],
            default="basic",
        ),
        "token": _text("Token", "Bearer token or macaroon.", format="password"),
        "token_file": _text("Token file", "File read again before each request."),
        "cert_file": _text("Certificate file", "X.509 certificate or proxy in PEM form."),
        "key_file": _text("Key file", "Private key; empty when the certificate file holds it."),
        "verify": _VERIFY,
        "ca_path": _text(
            "CA directory", "Bundle or hashed directory used when Verify TLS is true: /etc/grid-security/certificates."
        ),
        "door_root": _text(
            "Root of the WebDAV door",
            "Directory of the namespace that the WebDAV URL shows as /; empty for the whole.",
        ),
        "frontend_root": _text(
            "Root of the frontend", "Directory of the namespace that the frontend shows as /; empty for the whole."
        ),
        "allow_insecure_http": _flag(
            "Allow plain http", "Without it, plain http is refused except to this machine.", False
        ),
        **_TIMEOUTS,
        "allow_credential_forwarding": _flag(
            "Allow credential forwarding",
            "Hand the connection's own credentials to jobs where the server cannot issue macaroons.",
            False,
        ),
    },
}

_S3 = {
    "connection-type": "oscar_s3",
    "hook-class-name": f"{_PACKAGE}.hooks.s3.hook.OscarS3Hook",
    "hook-name": "OSCAR S3",
    "ui-field-behaviour": {
        "hidden-fields": ["port", "schema", "extra"],
        "relabeling": {"host": "Endpoint URL", "login": "Access key", "password": "Secret key"},
        "placeholders": {"host": "https://minio.example.org (empty for AWS)"},
    },
    "conn-fields": {
        "region_name": _text("Region", "Signing region.", default="us-east-1"),
        "session_token": _text("Session token", "For temporary credentials.", format="password"),
        "addressing_style": _text(
            "Addressing",
            "path for MinIO and Ceph, virtual for AWS, auto to let the client choose.",
            enum=["path", "virtual", "auto"],
        ),
        "verify": _VERIFY,
        **_TIMEOUTS,
    },
}

_INTERLINK = {
    "connection-type": "interlink",
    "hook-class-name": f"{_PACKAGE}.hooks.interlink.InterLinkHook",
    "hook-name": "Kubernetes with interLink",
    "ui-field-behaviour": {
        "hidden-fields": ["host", "port", "login", "password", "schema", "extra"],
        "relabeling": {},
        "placeholders": {},
    },
    "conn-fields": {
        "namespace": _text("Namespace", "Where pods and their secrets are created.", default="default"),
        "in_cluster": _flag(
            "In cluster", "Recommended on Kubernetes: the service account of the pod that Airflow runs in.", False
        ),
        "kube_config_path": _text(
            "Kube config file", "Recommended elsewhere: a file that workers, triggerer and API server can read."
        ),
        "kube_config_secret": _text(
            "Kube config",
            "If there is no file: the kube config itself, YAML or JSON, pasted as it is. Stored encrypted and shown as "
            "*** once saved; leave the *** to keep it.",
            format="multiline",
        ),
        "cluster_context": _text("Context", "Context of the kube config; empty for its current one."),
        "verify_ssl": _flag("Verify TLS", "Check the API server's certificate.", True),
        "slurm_conn_id": _text(
            "SLURM REST connection",
            "Connection (type http) of slurmrestd, asked whether a cancelled job is gone from SLURM; empty to trust "
            "interLink.",
        ),
        "slurm_job_url": _text(
            "SLURM job URL",
            "Page of a job in the site's portal, for the task's link; {job_id} stands for the job's number.",
        ),
    },
}


def _option(description: str, kind: str, default: str, example: str | None = None) -> dict[str, object]:
    return {
        "description": description,
        "version_added": "0.1.0",
        "type": kind,
        "example": example,
        "default": default,
    }


def get_provider_info() -> dict[str, object]:
    """Return the provider's metadata in the form of ``airflow/provider_info.schema.json``."""
    return {
        "package-name": "airflow-provider-oscar",
        "name": "OSCAR",
        "description": (
            "Runs AI workloads on new objects in S3 or dCache: as OSCAR service jobs in the cloud or, "
            "through interLink, as SLURM jobs on a supercomputer."
        ),
        "integrations": [
            {"integration-name": "OSCAR", "external-doc-url": "https://docs.oscar.grycap.net/", "tags": ["service"]},
            {
                "integration-name": "interLink",
                "external-doc-url": "https://interlink-project.dev/",
                "tags": ["service"],
            },
            {"integration-name": "dCache", "external-doc-url": "https://www.dcache.org/", "tags": ["service"]},
        ],
        "connection-types": [_OSCAR, _DCACHE, _S3, _INTERLINK],
        "hooks": [
            {
                "integration-name": "OSCAR",
                "python-modules": [f"{_PACKAGE}.hooks.oscar", f"{_PACKAGE}.jobs.builder", f"{_PACKAGE}.hooks.s3.hook"],
            },
            {
                "integration-name": "interLink",
                "python-modules": [f"{_PACKAGE}.hooks.interlink", f"{_PACKAGE}.hooks.slurm"],
            },
            {"integration-name": "dCache", "python-modules": [f"{_PACKAGE}.hooks.dcache"]},
            {"integration-name": "fsspec", "python-modules": [f"{_PACKAGE}.hooks.filesystem.hook"]},
        ],
        "operators": [
            {
                "integration-name": "OSCAR",
                "python-modules": [
                    f"{_PACKAGE}.operators.oscar",
                    f"{_PACKAGE}.operators.oscar_calls",
                    f"{_PACKAGE}.operators.oscar_exposed",
                    f"{_PACKAGE}.operators.oscar_service",
                    f"{_PACKAGE}.operators.placed",
                    f"{_PACKAGE}.operators.placed_job",
                    f"{_PACKAGE}.operators.placement",
                    f"{_PACKAGE}.operators.placement_base",
                    f"{_PACKAGE}.operators.placement_of_many",
                    f"{_PACKAGE}.operators.backfill",
                    f"{_PACKAGE}.operators.replay",
                ],
            },
            {
                "integration-name": "interLink",
                "python-modules": [
                    f"{_PACKAGE}.operators.interlink",
                    f"{_PACKAGE}.operators.interlink_batch",
                    f"{_PACKAGE}.operators.kubernetes",
                    f"{_PACKAGE}.operators.maintenance",
                ],
            },
            {"integration-name": "dCache", "python-modules": [f"{_PACKAGE}.operators.dcache"]},
        ],
        "sensors": [
            {
                "integration-name": "OSCAR",
                "python-modules": [
                    f"{_PACKAGE}.sensors.objects",
                    f"{_PACKAGE}.sensors.new_object",
                    f"{_PACKAGE}.sensors.oscar",
                ],
            },
            {"integration-name": "interLink", "python-modules": [f"{_PACKAGE}.sensors.interlink"]},
        ],
        "triggers": [
            {
                "integration-name": "OSCAR",
                "python-modules": [
                    f"{_PACKAGE}.triggers.objects",
                    f"{_PACKAGE}.triggers.first_objects",
                    f"{_PACKAGE}.triggers.jobs",
                    f"{_PACKAGE}.triggers.outages",
                    f"{_PACKAGE}.triggers.placement",
                    f"{_PACKAGE}.triggers.service_jobs",
                    f"{_PACKAGE}.triggers.stored",
                ],
            },
            {
                "integration-name": "interLink",
                "python-modules": [f"{_PACKAGE}.triggers.jobs", f"{_PACKAGE}.triggers.nodes"],
            },
            {"integration-name": "dCache", "python-modules": [f"{_PACKAGE}.triggers.dcache_tape"]},
        ],
        "task-decorators": [
            {"name": "interlink", "class-name": f"{_PACKAGE}.decorators.interlink.interlink_task"},
            {"name": "interlink_cmd", "class-name": f"{_PACKAGE}.decorators.interlink.interlink_command_task"},
            {"name": "kubernetes_job", "class-name": f"{_PACKAGE}.decorators.kubernetes.kubernetes_job_task"},
            {"name": "oscar", "class-name": f"{_PACKAGE}.decorators.oscar.oscar_task"},
            {"name": "placement", "class-name": f"{_PACKAGE}.decorators.placement.placement_task"},
        ],
        "asset-uris": [
            {
                "schemes": ["s3"],
                "handler": f"{_PACKAGE}.assets.sanitize_s3_uri",
                "factory": f"{_PACKAGE}.assets.s3_asset",
            },
            {
                "schemes": ["dcache"],
                "handler": f"{_PACKAGE}.assets.sanitize_dcache_uri",
                "factory": f"{_PACKAGE}.assets.dcache_asset",
            },
            {
                "schemes": ["oscar"],
                "handler": f"{_PACKAGE}.assets.sanitize_oscar_uri",
                "factory": f"{_PACKAGE}.assets.oscar_asset",
            },
        ],
        "filesystems": [f"{_PACKAGE}.fs", f"{_PACKAGE}.rucio_fs"],
        "extra-links": [
            f"{_PACKAGE}.links.OscarJobLogLink",
            f"{_PACKAGE}.links.OutputLink",
            f"{_PACKAGE}.links.SlurmJobLink",
        ],
        "cli": [f"{_PACKAGE}.cli.get_cli_commands"],
        "config": {
            "oscar": {
                "description": "Defaults of airflow-provider-oscar; an argument given in a DAG wins.",
                "options": {
                    "notifications_conn_id": _option(
                        "Connection of the notification receiver (/oscar/notifications/<asset> of the API server): its "
                        "password is the secret of the senders, its extra 'assets' says what is taken from where.",
                        "string",
                        "oscar_notifications",
                    ),
                    "poll_interval": _option("Seconds between two polls at a job or a listing.", "float", "10"),
                    "job_timeout": _option(
                        "Seconds after which a job that has not ended is cancelled and failed; on a virtual node what "
                        "it asks SLURM for comes on top, so that a long queue takes nothing from a long run.",
                        "float",
                        "86400",
                    ),
                    "outage_tolerance": _option(
                        "Seconds for which a job task with retries waits for a store or a place to run jobs that is "
                        "away when it wants to submit, before a try fails; 0 to leave all to the retries.",
                        "float",
                        "900",
                    ),
                    "access_lifetime": _option(
                        "Seconds that presigned URLs and macaroons handed to a job stay valid, at most 604800; they "
                        "are renewed while it is waited for. By default as long as the job may take, a day at least.",
                        "float",
                        "",
                    ),
                    "defer_after": _option(
                        "Seconds for which a deferrable task waits for its job on the worker before it is deferred, "
                        "half of that for a job that does not start: a quick job takes one task process. 0 for never.",
                        "float",
                        "10",
                    ),
                    "signing_key": _option(
                        "Secret that the keys of manifests are derived from, the same on workers, triggerers and API "
                        "servers; several with commas between them, the newest first, to change it. By default "
                        "[core] fernet_key.",
                        "string",
                        "",
                    ),
                    "deployment_id": _option(
                        "Name of this Airflow in the names of its jobs, so that two that share a cluster never take "
                        "each other's nor remove what is left of them; by default made of the signing key.",
                        "string",
                        "",
                    ),
                    "run_functions_locally": _option(
                        "Run the functions of @task.interlink, @task.oscar and @task.kubernetes_job on the worker "
                        "instead of in jobs: for dag.test() on a machine without any of these.",
                        "boolean",
                        "False",
                    ),
                },
            }
        },
    }
