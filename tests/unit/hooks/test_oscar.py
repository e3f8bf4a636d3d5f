# SPDX-License-Identifier: Apache-2.0
"""OSCAR's calls, driven by hand, and the connection that sends them."""

from __future__ import annotations

import base64
import inspect
import json

import httpx
import pytest
from airflow.sdk import Connection

from airflow_provider_oscar.core.errors import (
    AccessError,
    DefinitionError,
    LostContactError,
    OscarProviderError,
    PermanentError,
    TransientError,
)
from airflow_provider_oscar.core.phase import JobPhase
from airflow_provider_oscar.core.services import ServiceDefinition, StoragePath
from airflow_provider_oscar.hooks.oscar.errors import BucketExistsError, RouteAbsentError, refusal
from airflow_provider_oscar.hooks.oscar.hook import OscarHook, encode_body
from airflow_provider_oscar.hooks.oscar.repeat import JOB_ID_HEADER
from airflow_provider_oscar.hooks.oscar.requests import OscarJob, OscarRequests
from airflow_provider_oscar.hooks.oscar.routes import OscarRoutes
from airflow_provider_oscar.hooks.oscar.submissions import SUBMISSION_LIMIT, JobRequest, OscarSubmissions, Submission
from airflow_provider_oscar.jobs.oscar import OscarBackend

TOKEN = "ab" * 32


class Calls(OscarSubmissions, OscarRoutes):
    api = OscarRequests("https://oscar.test", "connection 'oscar_default'")  # type: ignore[assignment]


def drive(flow, *answers):
    """Answer the requests of a flow in order; return its result and the requests."""
    requests = []
    waiting = list(answers)
    try:
        request = next(flow)
        while True:
            requests.append(request)
            request = flow.send(waiting.pop(0))
    except StopIteration as end:
        assert not waiting, "the flow asked for less than expected"
        return end.value, requests


def answer(status=200, body=None, text="", **headers):
    return (
        httpx.Response(status, json=body, headers=headers)
        if body is not None
        else httpx.Response(status, text=text, headers=headers)
    )


def jobs(*names, status="Running", next_page=""):
    return answer(body={"jobs": {name: {"status": status} for name in names}, "next_page": next_page})


SERVICE = answer(body={"name": "infer", "token": TOKEN})
INFO = answer(body={"version": "v4.1.2"})
OLD = answer(body={"version": "v3.6.4"})


def test_job_is_submitted_under_the_chosen_name_with_three_requests():
    result, requests = drive(Calls().submit_job("infer", b"e30=", "infer-1"), SERVICE, INFO, answer(201))
    assert result == Submission("infer-1")
    post = requests[2]
    assert (post.method, post.url.path, post.content) == ("POST", "/job/infer", b"e30=")
    assert post.headers[JOB_ID_HEADER] == "infer-1"
    assert post.headers["Authorization"] == f"Bearer {TOKEN}"


def test_job_that_is_listed_by_an_old_server_is_adopted_without_a_post():
    result, requests = drive(Calls().submit_job("infer", b"", "infer-1"), SERVICE, OLD, jobs("infer-1"))
    assert result == Submission("infer-1", adopted=True)
    assert [request.method for request in requests] == ["GET", "GET", "GET"]


def test_job_that_exists_is_adopted():
    refused = answer(500, text='jobs.batch "infer-1" already exists')
    result, _ = drive(Calls().submit_job("infer", b"", "infer-1"), SERVICE, INFO, refused)
    assert result == Submission("infer-1", adopted=True)


def test_any_other_500_on_submission_is_tried_again():
    with pytest.raises(TransientError, match="OSCAR failed at job 'infer-1'.*answered 500"):
        drive(Calls().submit_job("infer", b"", "infer-1"), SERVICE, INFO, answer(500, text="quota"))


@pytest.mark.parametrize(
    ("text", "status", "new"), [("404 page not found", 404, False), ("", 404, True), ("", 400, True)]
)
def test_server_without_a_version_is_asked_for_a_route_of_4_1(text, status, new):
    result, _ = drive(Calls().takes_job_names(), answer(body={"version": "devel"}), answer(status, text=text))
    assert result is new


def test_old_server_that_names_the_job_itself_is_recognised():
    result, _ = drive(
        Calls().submit_job("infer", b"", "x"), SERVICE, OLD, jobs("old"), answer(201), jobs("old", "infer-uuid")
    )
    assert result == Submission("infer-uuid")


def test_old_server_with_two_new_jobs_is_not_guessed_at():
    with pytest.raises(LostContactError, match="older than 4.1"):
        drive(Calls().submit_job("infer", b"", "x"), SERVICE, OLD, jobs(), answer(201), jobs("a", "b"))


def test_accepted_but_unlisted_job_of_an_old_server_is_lost():
    with pytest.raises(LostContactError, match="does not list"):
        drive(Calls().submit_job("infer", b"", "x"), SERVICE, OLD, jobs(), answer(201), jobs())


def test_job_specification_is_never_given_to_a_foreign_script():
    foreign = answer(body={"name": "infer", "token": TOKEN, "script": "wc -w $INPUT_FILE_PATH"})
    with pytest.raises(DefinitionError, match="not this provider's supervisor.*@supervisor.*payload"):
        drive(Calls().submit_job("infer", b"", "x", needs_supervisor=True), foreign)


def test_service_token_starts_its_service_without_reading_it():
    calls = Calls()
    calls.api = OscarRequests("https://oscar.test", "connection 'c'", service_token=True)
    result, requests = drive(calls.submit_job("infer", b"", "x"), answer(201))
    assert (result, [request.method for request in requests]) == (Submission("x"), ["POST"])


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("error creating bucket X_y: InvalidBucketName: The specified bucket is not valid.", "3 to 63 characters"),
        ('the StorageProvider "minio.other" is not defined', "under storage_providers"),
        ("Error creating the service: quantities must match the regular expression", "correct cpu or memory"),
        ('Error creating the service: ConfigMap "A" is invalid: metadata.name', "correct what the text names"),
        ('getting volume quotas for user ann: resourcequotas "ann" not found', "first login"),
        ('creating MinIO quota ConfigMap s-a/minio-quota: namespaces "s-a" not found', "first login"),
        ("invalid volumes.disk quantity: quantities must match the regular expression", "correct the limit it names"),
        ("invalid minio.buckets quantity: strconv.ParseInt", "correct the limit it names"),
        ("Missing bucket metadata: \n", "no such bucket"),
        ('error creating folder "out/" in bucket "b": MissingRegion: could not find', "give its provider a region"),
        ('PodTemplate "a" is invalid: mountPath: Invalid value: "/data": must be unique', "choose another mount_path"),
    ],
)
def test_500_that_no_repetition_mends_is_final_and_names_the_remedy(text, remedy):
    error = refusal(answer(500, text=text), resource="x", display_name="c")
    assert isinstance(error, DefinitionError)
    assert remedy in str(error)


def test_bucket_that_is_there_is_named():
    error = refusal(answer(500, text='the bucket "out" already exists\n'), resource="x", display_name="c")
    assert isinstance(error, BucketExistsError)
    assert error.bucket == "out"


def test_unknown_service_is_named_with_the_remedy():
    with pytest.raises(
        DefinitionError, match=r"connection 'oscar_default': there is no OSCAR service 'infer'; create it"
    ):
        drive(Calls().submit_job("infer", b"", "x"), answer(404))


@pytest.mark.parametrize(("node", "size"), [("", SUBMISSION_LIMIT + 1), ("hpc", 98_299)], ids=["plain", "interlink"])
def test_body_that_does_not_fit_the_environment_is_refused_before_it_is_sent(node, size):
    service = answer(body={"name": "infer", "interlink_node_name": node})
    with pytest.raises(DefinitionError, match="environment variable"):
        drive(Calls().submit_job("infer", b"x" * size, "x"), service)


def test_all_pages_of_jobs_are_read():
    result, requests = drive(Calls().list_jobs("infer"), jobs("a", next_page="t 1"), jobs("b"))
    assert sorted(result) == ["a", "b"]
    assert requests[1].url.params["page"] == "t 1"


def test_expired_page_starts_the_list_again():
    result, requests = drive(Calls().list_jobs("infer"), jobs("a", next_page="t"), answer(500), jobs("a", "b"))
    assert sorted(result) == ["a", "b"]
    assert "page" not in requests[2].url.params


def test_pages_that_go_round_in_circles_end():
    round_trip = [jobs("a", next_page="t")] * 6
    with pytest.raises(LostContactError, match="do not end"):
        drive(Calls().list_jobs("infer"), *round_trip)


def test_flat_list_of_old_servers_is_read():
    result, _ = drive(Calls().list_jobs("infer"), answer(body={"a": {"status": "Succeeded"}}))
    assert result["a"].phase is JobPhase.SUCCEEDED


@pytest.mark.parametrize(
    "body",
    [{"jobs": None}, {}, {"jobs": {"a": {"status": 7}}}, {"a": {}}, {"jobs": {"a": {"start_time": [1]}}, "total": 3}],
)
def test_odd_lists_of_jobs_do_not_raise(body):
    result, _ = drive(Calls().list_jobs("infer"), answer(body=body))
    assert all(job.phase is JobPhase.UNKNOWN for job in result.values())


@pytest.mark.parametrize(
    "body",
    [[], 5, "x", {"error": "no"}, {"jobs": []}, {"jobs": "x"}, {"jobs": {"a": None}}, {"jobs": {"a": "Running"}}]
    + [{"a": {"status": "Running"}, "b": 1}, [{"name": "a", "status": "Running"}]],
    ids=str,
)
@pytest.mark.parametrize("page", [1, 2])
def test_what_is_no_list_of_jobs_is_not_a_service_without_jobs(body, page):
    answers = [jobs("x", next_page="t")] * (page - 1) + [answer(body=body)]
    with pytest.raises(LostContactError, match="the answer about jobs of service 'infer' is not "):
        drive(Calls().list_jobs("infer"), *answers)


@pytest.mark.parametrize("status", [400, 410, 500])
def test_token_of_a_page_that_is_too_old_starts_the_list_again(status):
    again = [jobs("a", next_page="t"), answer(status, text="Expired"), jobs("a")]
    result, sent = drive(Calls().list_jobs("infer"), *again)
    assert (list(result), len(sent)) == (["a"], 3)


@pytest.mark.parametrize("body", ["[]", "null", '"x"', "5"])
@pytest.mark.parametrize("call", ["get_service", "get_bucket"])
def test_what_is_no_object_is_not_an_empty_one(call, body):
    with pytest.raises(LostContactError, match="is not an object"):
        drive(getattr(Calls(), call)("x"), httpx.Response(200, text=body))


def test_buckets_below_a_name_are_read():
    result, _ = drive(Calls().list_buckets(), answer(body={"buckets": [{"bucket_name": "b"}]}))
    assert result == [{"bucket_name": "b"}]


@pytest.mark.parametrize("pages", [[{"objects": [], "is_truncated": True}], [{"objects": [], "next_page": "t"}] * 2])
def test_a_bucket_whose_pages_do_not_end_as_they_should_is_not_shown_in_part(pages):
    with pytest.raises(LostContactError, match="pages of bucket 'b' do not end"):
        drive(Calls().get_bucket("b"), *(answer(body=page) for page in pages))


@pytest.mark.parametrize(
    ("found", "kind"),
    [
        (answer(500, text="boom"), TransientError),
        (answer(404, text="404 page not found"), DefinitionError),
        (answer(403), AccessError),
        (httpx.Response(200, html="<html>log in</html>"), LostContactError),
    ],
)
def test_what_is_no_log_is_not_taken_for_one_that_is_not_there_yet(found, kind):
    with pytest.raises(kind):
        drive(Calls().job_log("infer", "j"), found)


#: Calls that put a name into a path of OSCAR's, with what else they need.
NAMED = {
    "authorises": (),
    "call_exposed": (), "change_federation": ("POST", {}), "control_service": ("stop",), "delete_bucket": (),
    "delete_jobs": (), "delete_service": (), "delete_volume": (), "get_bucket": (), "get_deployment": (),
    "get_deployment_logs": (), "get_federation": (), "get_service": (), "get_volume": (), "job_log": ("j",),
    "delete_job": ("j",), "list_jobs": (), "presign": ("k", "upload"), "prepare_job": (b"eA==",),
    "run_service": (b"x",), "set_quota": ({},), "submit_job": (b"eA==", "j"),
}  # fmt: skip
#: Calls that have an address for no name as well.
OPTIONAL = {"get_metrics": (), "get_quota": ()}


def test_every_call_with_a_name_in_its_path_is_in_the_next_test():
    first = ("name", "service", "bucket", "user")
    calls = {
        name
        for name, each in inspect.getmembers(Calls, inspect.isfunction)
        if not name.startswith("_") and [*inspect.signature(each).parameters][1:2] and name not in ("send_job", "check")
        if [*inspect.signature(each).parameters][1] in first
    }
    # They make no path of it, or what they have besides it would not be what this test gives them.
    rest = {"create_bucket", "create_volume", "update_bucket", "unlisted", "ambiguous", "takes_job_names"}
    assert calls - rest == NAMED.keys() | OPTIONAL.keys()


@pytest.mark.parametrize("name", [".", "..", "a/b", "../config", "a\nb", "a\0b", "\ud800", "\u202eb", None, ""])
@pytest.mark.parametrize("call", [*NAMED, *OPTIONAL])
def test_a_name_that_would_reach_another_route_is_never_sent(call, name):
    if call in OPTIONAL and not name:
        return
    with pytest.raises(DefinitionError, match=r"is not a name of a (service|bucket|volume|user)"):
        drive(getattr(Calls(), call)(name, *(NAMED | OPTIONAL)[call]))


@pytest.mark.parametrize("name", ["", "Upper", "a_b", "a b", "é", "a\nb", "-a", "a-", "a" * 64])
def test_a_job_of_a_name_that_kubernetes_does_not_take_is_never_sent(name):
    with pytest.raises(DefinitionError, match="is not a name of a job; it has 1 to 63 characters"):
        drive(Calls().send_job(JobRequest("svc", b"eA=="), name))


@pytest.mark.parametrize("value", [float("nan"), {1, 2}, object(), b"x"])
def test_what_json_has_no_word_for_is_refused_before_it_is_sent(value):
    with pytest.raises(DefinitionError, match="about quotas is not JSON"):
        drive(Calls().set_quota("u", {"cpu": value}))
    with pytest.raises(DefinitionError, match="does not change a federation"):
        drive(Calls().change_federation("svc", "PATCH", {}))


@pytest.mark.parametrize(
    ("status", "text", "kind", "remedy"),
    [
        (400, 'the bucket "b" already exists', DefinitionError, "use what is there, or choose another name"),
        (400, "InvalidBucketName: The specified bucket is not valid", DefinitionError, "3 to 63 characters"),
        (400, 'service "svc" is not exposed', DefinitionError, "expose.api_port"),
        (503, "kueue is not enabled: it requires KUEUE_ENABLE=true", RouteAbsentError, "switched that off"),
    ],
)
def test_what_no_repetition_mends_has_its_remedy(status, text, kind, remedy):
    error = refusal(answer(status, text=text), resource="x", display_name="here")
    assert isinstance(error, kind)
    assert remedy in str(error)


def test_pages_of_new_names_for_ever_end(monkeypatch):
    monkeypatch.setattr("airflow_provider_oscar.hooks.oscar.routes.PAGES", 5)
    monkeypatch.setattr("airflow_provider_oscar.hooks.oscar.api.PAGES", 5)
    with pytest.raises(LostContactError, match="pages of bucket 'b' do not end"):
        drive(Calls().get_bucket("b"), *(answer(body={"objects": [], "next_page": f"t{n}"}) for n in range(9)))
    with pytest.raises(LostContactError, match="pages of the jobs of service 'infer' do not end"):
        drive(Calls().list_jobs("infer"), *(jobs("a", next_page=f"t{n}") for n in range(99)))


def test_empty_answer_means_that_the_user_may_not_see_it():
    with pytest.raises(DefinitionError, match="shows nothing of jobs of service 'infer'"):
        drive(Calls().list_jobs("infer"), answer(200))


def test_suspended_job_waits():
    assert OscarJob.from_oscar("a", {"status": "Suspended"}).phase is JobPhase.PENDING


@pytest.mark.parametrize("status", [404, 500])
def test_log_of_a_job_without_pod_is_none(status):
    assert drive(Calls().job_log("infer", "a"), answer(status))[0] is None


def test_of_a_long_log_the_number_of_its_first_line_is_told():
    cut = httpx.Response(200, text="moo\n", extensions={"lines_before": 7})
    text, (request,) = drive(Calls().job_log("infer", "a"), cut)
    assert (text, text.first_line, request.extensions["keep_end"]) == ("moo\n", 7, 64 * 1024 * 1024)


class Breaking(httpx.SyncByteStream):
    """A body that breaks off."""

    def __iter__(self):
        yield b"moo\n"
        raise httpx.ReadError("reset")


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (httpx.Response(200, text="moo\n" * 5), b"moo\n" * 5),
        (httpx.Response(404), b""),
        (httpx.Response(500), b""),
        (httpx.Response(500, text="boom"), TransientError),
        (httpx.Response(200), DefinitionError),
        (httpx.Response(200, html="<html>log in</html>"), LostContactError),
        (httpx.Response(200, stream=Breaking(), headers={"Content-Type": "text/plain"}), TransientError),
    ],
)
def test_a_log_of_any_size_comes_in_pieces_and_what_is_no_log_is_told_apart(monkeypatch, found, said):
    monkeypatch.setenv("AIRFLOW_CONN_OSCAR_DEFAULT", json.dumps({"conn_type": "oscar", "host": "https://o.test"}))
    transport = httpx.MockTransport(lambda _: found)
    monkeypatch.setattr(OscarHook, "client", lambda self: httpx.Client(transport=transport))
    chunks = OscarHook().log_chunks("infer", "a")
    if isinstance(said, bytes):
        assert b"".join(chunks) == said
    else:
        with pytest.raises(said):
            list(chunks)


def test_log_of_any_bytes_is_text():
    raw = httpx.Response(200, content=b"\xff\n")
    assert drive(Calls().job_log("infer", "a"), raw)[0] == "\ufffd\n"


@pytest.mark.parametrize(("status", "gone"), [(204, True), (404, False), (403, False)])
def test_cancelling_a_job_that_is_not_there_succeeds(status, gone):
    assert drive(Calls().delete_job("infer", "a"), answer(status))[0] is gone


@pytest.mark.parametrize("name", ["", ".", ".."])
def test_names_cannot_leave_the_path(name):
    with pytest.raises(DefinitionError):
        drive(Calls().get_service(name))


def test_hostile_name_stays_one_segment():
    _, requests = drive(Calls().delete_job("a b", "..x?y#z"), answer(204))
    assert requests[0].url.raw_path == b"/system/logs/a%20b/..x%3Fy%23z"


DEFINITION = ServiceDefinition(name="infer", image="python:3", script="#!/bin/sh\ntrue\n")


def test_service_is_created_when_absent():
    made = answer(body=DEFINITION.to_api())
    result, requests = drive(Calls().apply_service(DEFINITION), answer(404), answer(201), made)
    assert result == "created"
    assert requests[1].method == "POST"
    assert json.loads(requests[1].content)["name"] == "infer"
    assert requests[1].extensions["timeout"]["read"] >= 120


def test_a_service_that_another_task_made_meanwhile_is_there():
    exists = answer(400, text="A service with the provided name already exists")
    made = answer(body=DEFINITION.to_api())
    result, requests = drive(Calls().apply_service(DEFINITION), answer(404), exists, made)
    assert (result, [request.method for request in requests]) == ("unchanged", ["GET", "POST", "GET"])
    with pytest.raises(DefinitionError, match="already exists"):
        drive(Calls().apply_service(DEFINITION), answer(404), exists, answer(404))


def test_service_that_differs_is_updated_and_never_deleted():
    theirs = DEFINITION.to_api() | {"image": "python:2"}
    result, requests = drive(
        Calls().apply_service(DEFINITION), answer(body=theirs), answer(204), answer(body=DEFINITION.to_api())
    )
    assert result == "updated"
    assert [request.method for request in requests] == ["GET", "PUT", "GET"]


@pytest.mark.parametrize(("owner", "sent"), [("somebody@egi.eu", "somebody@egi.eu"), ("", "cluster_admin")])
def test_update_keeps_the_owner_or_gives_the_service_one(owner, sent):
    theirs = DEFINITION.to_api() | {"image": "python:2", "owner": owner}
    _, requests = drive(
        Calls().apply_service(DEFINITION), answer(body=theirs), answer(204), answer(body=DEFINITION.to_api())
    )
    assert json.loads(requests[1].content)["owner"] == sent


def test_update_that_was_made_and_answered_by_an_error_is_an_update(caplog):
    theirs = DEFINITION.to_api() | {"image": "python:2"}
    answers = (answer(body=theirs), answer(500, text="error setting policy"))
    now = answer(body=DEFINITION.to_api())
    result, _ = drive(Calls().apply_service(DEFINITION), *answers, now, now)
    assert result == "updated"
    assert "error setting policy" in caplog.text


@pytest.mark.parametrize("after", [answer(404), answer(body=DEFINITION.to_api() | {"image": "python:2"})])
def test_update_that_was_not_made_is_an_error(after):
    theirs = DEFINITION.to_api() | {"image": "python:2"}
    with pytest.raises(TransientError, match="error setting policy"):
        drive(Calls().apply_service(DEFINITION), answer(body=theirs), answer(500, text="error setting policy"), after)


WRITER = ServiceDefinition(
    name="first", image="i", script="true\n", outputs=(StoragePath(storage_provider="minio", path="second/in"),)
)


@pytest.mark.parametrize("claimed", [(), ("second",)], ids=["found out", "known"])
def test_output_bucket_of_another_service_is_given_by_an_update(claimed):
    exists = [answer(500, text='the bucket "second" already exists\n')] if not claimed else []
    made, whole = answer(body=WRITER.without_outputs({"second"}).to_api()), answer(body=WRITER.to_api())
    result, requests = drive(
        Calls().apply_service(WRITER, claimed=claimed), answer(404), *exists, answer(201), made, answer(204), whole
    )
    assert result == "created"
    sent = [(each.method, json.loads(each.content)["output"]) for each in requests if each.method != "GET"]
    assert [(method, bool(outputs)) for method, outputs in sent][-2:] == [("POST", False), ("PUT", True)]


def test_input_bucket_that_is_there_is_refused_with_the_remedy():
    reader = ServiceDefinition(
        name="r", image="i", script="x\n", inputs=(StoragePath(storage_provider="minio", path="second/in"),)
    )
    exists = answer(500, text='the bucket "second" already exists\n')
    with pytest.raises(DefinitionError, match="choose another path"):
        drive(Calls().apply_service(reader), answer(404), exists)


def test_what_the_server_did_not_keep_is_said(caplog):
    wanted = ServiceDefinition(name="infer", image="i", script="x\n", volume={"name": "v", "size": "1Gi"})
    kept = wanted.to_api()
    del kept["volume"]
    drive(Calls().apply_service(wanted), answer(404), answer(201), answer(body=kept))
    assert "did not keep volume of service 'infer'" in caplog.text


def test_service_for_a_virtual_node_is_named_where_nothing_is_offloaded(caplog):
    wanted = ServiceDefinition(name="infer", image="i", script="x\n", interlink_node_name="vk")
    config = answer(body={"config": {"interLink_available": False}})
    drive(Calls().apply_service(wanted), answer(404), answer(201), answer(body=wanted.to_api()), config)
    assert "its jobs run in the cloud" in caplog.text


def test_service_that_is_as_defined_is_left_alone():
    theirs = DEFINITION.to_api() | {"token": TOKEN, "owner": "cluster_admin"}
    result, requests = drive(Calls().apply_service(DEFINITION), answer(body=theirs))
    assert result == "unchanged"
    assert len(requests) == 1


def test_every_status_has_an_error():
    for status in [status for status in range(100, 600) if not 200 <= status < 300]:
        error = refusal(httpx.Response(status, text="why"), resource="x", display_name="connection 'c'")
        assert isinstance(error, DefinitionError | TransientError | PermanentError)
        assert "connection 'c'" in str(error)
        assert str(status) in str(error)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, DefinitionError),
        (401, DefinitionError),
        (403, DefinitionError),
        (404, DefinitionError),
        (409, PermanentError),
        (413, PermanentError),
        (429, TransientError),
        (500, TransientError),
        (501, PermanentError),
        (502, TransientError),
        (504, TransientError),
        (301, DefinitionError),
        (302, TransientError),
    ],
)
def test_status_is_sorted_by_what_to_do_next(status, kind):
    assert isinstance(refusal(httpx.Response(status), resource="x", display_name="c"), kind)


def test_wish_of_the_server_to_wait_is_kept():
    error = refusal(answer(429, text="", **{"Retry-After": "7"}), resource="x", display_name="c")
    assert isinstance(error, TransientError)
    assert error.delay == 7


def connection(**fields):
    extra = fields.pop("extra", {})
    base = {
        "conn_id": "oscar_default",
        "conn_type": "oscar",
        "host": "https://oscar.test",
        "login": "u",
        "password": "p",
    }
    return Connection(**(base | fields), extra=json.dumps(extra))


def hook_with(handler, **fields):
    """A hook whose requests go to a function."""
    hook = OscarHook(connection=connection(**fields))
    hook.client = lambda **_: httpx.Client(auth=hook.auth, transport=httpx.MockTransport(handler))  # type: ignore[method-assign]
    return hook


def test_basic_credentials_go_to_the_system_routes_and_the_services_token_to_jobs():
    seen = []

    def handler(request):
        seen.append((request.url.path, request.headers.get("authorization")))
        if request.method == "POST":
            return answer(201)
        return answer(body={"name": "infer", "token": TOKEN, "version": "v4.1.0"})

    hook = hook_with(handler)
    assert hook.run(hook.submit_job("infer", b"", "x")) == Submission("x")
    basic = "Basic " + base64.b64encode(b"u:p").decode()
    assert [value for path, value in seen if path.startswith("/system")] == [basic] * 2
    assert [value for path, value in seen if path.startswith("/job")] == [f"Bearer {TOKEN}"]


def test_health_is_asked_without_credentials():
    def handler(request):
        return answer(200 if "authorization" not in request.headers else 500)

    hook = hook_with(handler)
    assert hook.run(hook.health())


def test_refresh_token_is_exchanged_once_and_again_after_a_401():
    issued, calls = [], []

    def handler(request):
        if request.url.host == "issuer.test":
            assert b"refresh_token=r1" in request.content
            issued.append(1)
            return answer(body={"access_token": f"t{len(issued)}", "expires_in": 3600})
        calls.append(request.headers["authorization"])
        return (
            answer(401)
            if request.headers["authorization"] == "Bearer t1" and len(calls) > 1
            else answer(body={"version": "v4.1.0"})
        )

    hook = hook_with(
        handler,
        login="",
        extra={"auth_type": "oidc", "refresh_token": "r1", "token_endpoint": "https://issuer.test/token"},
    )
    with hook.client() as client:
        from airflow_provider_oscar.hooks.http import flows

        flows.run(client, hook.get_info())
        flows.run(client, hook.get_info())
    assert calls == ["Bearer t1", "Bearer t1", "Bearer t2"]


def test_refused_refresh_token_is_said_without_showing_it():
    hook = hook_with(
        lambda request: answer(400, text="bad r1-secret"),
        extra={"auth_type": "oidc", "refresh_token": "r1-secret", "token_endpoint": "https://issuer.test/token"},
    )
    with pytest.raises(DefinitionError, match="gave no access token") as raised:
        hook.run(hook.get_info())
    assert "r1-secret" not in str(raised.value)


def test_token_endpoint_in_clear_is_refused():
    extra = {"auth_type": "oidc", "refresh_token": "r", "token_endpoint": "http://issuer.test/token"}
    with pytest.raises(DefinitionError, match="not https"):
        OscarHook(connection=connection(extra=extra)).auth  # noqa: B018


@pytest.mark.parametrize("host", ["", "ftp://x", "https://", "https://x/?a=b", "https://x:port", "https://u:p@x"])
def test_unusable_host_is_named(host):
    with pytest.raises(DefinitionError, match="connection 'oscar_default' has no usable OSCAR endpoint"):
        OscarHook(connection=connection(host=host)).api  # noqa: B018


@pytest.mark.parametrize(
    "fields",
    [{"login": ""}, {"password": ""}, {"extra": {"auth_type": "oidc"}}, {"extra": {"auth_type": "magic"}}],
    ids=["no login", "no password", "no token", "unknown kind"],
)
def test_missing_credentials_are_named(fields):
    with pytest.raises(DefinitionError, match="connection 'oscar_default' has no credentials"):
        OscarHook(connection=connection(**fields)).auth  # noqa: B018


def test_unreachable_server_fails_the_test_button_in_words():
    hook = OscarHook(connection=connection(host="http://127.0.0.1:9"))
    works, message = hook.test_connection()
    assert not works
    assert "cannot connect" in message


def test_test_button_tells_the_version():
    hook = hook_with(lambda request: answer(body={"version": "v4.1.2", "kubernetes_version": "v1.33"}))
    assert hook.test_connection() == (True, "OSCAR v4.1.2 on Kubernetes v1.33")


def observed(hook):
    backend = OscarBackend(conn_id="oscar_default", service="infer")
    backend.hook = hook
    return backend.observe()


def test_observation_counts_what_is_not_finished():
    def handler(request):
        if "services" in request.url.path:
            return answer(body={"name": "infer"})
        return answer(
            body={"jobs": {"a": {"status": "Running"}, "b": {"status": "Suspended"}, "c": {"status": "Failed"}}}
        )

    seen = observed(hook_with(handler))
    assert (seen.up, seen.active) == (True, 2)


def test_observation_of_an_outage_is_a_reason_not_an_error():
    seen = observed(hook_with(lambda request: answer(503)))
    assert not seen.up
    assert "503" in seen.reason


def test_every_error_of_a_call_is_ours():
    for status in (300, 400, 401, 418, 500):
        hook = hook_with(lambda request, status=status: answer(status))
        with pytest.raises(OscarProviderError):
            hook.run(hook.list_services())


def test_body_is_base64():
    assert encode_body(b"{}") == b"e30="
