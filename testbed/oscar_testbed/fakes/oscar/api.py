# SPDX-License-Identifier: Apache-2.0
"""The REST API of OSCAR over services, jobs and buckets: answers, empty bodies and error texts as OSCAR's."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import time
from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from oscar_testbed.fakes.kubernetes.pods import valid_name
from oscar_testbed.fakes.oscar.bucket_api import JSONResponse
from oscar_testbed.fakes.oscar.buckets import Buckets, refused_name
from oscar_testbed.fakes.oscar.cluster_api import ClusterApi
from oscar_testbed.fakes.oscar.definitions import (
    OWNER,
    RefusedError,
    Service,
    buckets,
    check_objects,
    check_regions,
    check_storage,
    decoded,
    mounted_path,
    normalised,
    shown,
)
from oscar_testbed.fakes.oscar.exposed import Exposed
from oscar_testbed.fakes.oscar.federation import FederationApi, expand, refusals, roll_back
from oscar_testbed.fakes.oscar.job_registry import JobRegistry
from oscar_testbed.fakes.oscar.journal import Journal
from oscar_testbed.fakes.oscar.pages import before_suspended, page_token, read_page_token
from oscar_testbed.fakes.oscar.quotas import QuotaApi
from oscar_testbed.fakes.oscar.services import ServiceStore
from oscar_testbed.fakes.oscar.volumes import VolumeApi, check_mount, check_volume
from oscar_testbed.faults import OscarFaults

#: Letters of a service's token.
TOKEN_LENGTH = 64
#: What who has no password is answered.
CHALLENGE = {"WWW-Authenticate": 'Basic realm="Authorization Required"'}
#: Requests that client-go lets through at once.
_BURST = 10
#: What OSCAR says when it has no MinIO user to give a bucket to, or to take it from.
_NO_OWNER = (
    "error creating/adding MinIO policy for user/group : Invalid arguments specified. (Invalid arguments specified)"
)
_NO_USER = (
    "error setting MinIO policy for user/group {}: The specified user does not exist. (Specified user does not exist)"
)
_LEFT_BUCKETS = (
    "Error deleting service buckets: %!(EXTRA *errors.errorString=error while removing MinIO bucket "
    "error removing resource)"
)


class Api:
    """Endpoints.

    :param credentials: user name and password of the administrator.
    :param offloading: whether there is a virtual node.
    :param exposed: runs services that are called.
    """

    def __init__(  # noqa: PLR0917 - the parts it answers for
        self,
        services: ServiceStore,
        registry: JobRegistry,
        storage: Buckets,
        credentials: tuple[str, str],
        faults: OscarFaults,
        *,
        offloading: Callable[[], bool] | None = None,
        exposed: Exposed | None = None,
    ) -> None:
        self.services = services
        self.registry = registry
        self.buckets = storage
        self.faults = faults
        self.options = registry.options
        self._offloading = offloading or (lambda: False)
        self.cluster = ClusterApi(services, registry, storage, self.options, self._offloading)
        self.volumes = VolumeApi(services)
        self.quotas = QuotaApi(self.options)
        self.federation = FederationApi(services)
        self.exposed = exposed or Exposed(services, registry.container, services.directory.parent / "exposed")
        self.journal = Journal(services)
        word = base64.b64encode(":".join(credentials).encode()).decode()
        self._basic = f"Basic {word}"
        self._free_at = 0.0

    # ---- who asks ----

    def is_admin(self, request: Request) -> bool:
        """Whether the request carries the administrator's password."""
        sent = request.headers.get("authorization", "")
        return hmac.compare_digest(sent.encode(), self._basic.encode())

    # ---- services ----

    async def list_services(self, request: Request) -> Response:
        """Every definition, secrets and tokens included."""
        found = [self.services.get(name) for name in self.services.names()]
        return JSONResponse([self._shown(one, request) for one in found if one])

    async def read_service(self, request: Request) -> Response:
        """One definition."""
        service = self.services.get(request.path_params["name"])
        return JSONResponse(self._shown(service, request)) if service else Response(status_code=404)

    async def authorise(self, request: Request) -> Response:
        """200 for the administrator and for who has the token of the service."""
        sent = request.headers.get("authorization", "")
        service = self.services.get(request.path_params["name"])
        token = sent.removeprefix("Bearer ") if sent else request.query_params.get("token", "")
        if not sent.startswith("Basic ") and len(token) == TOKEN_LENGTH:
            if service is None:
                return Response(status_code=404)
            same = hmac.compare_digest(service["token"].encode(), token.encode())
            return Response(status_code=200 if same else 401)
        if not self.is_admin(request):  # what is not a token of a service is taken for a password
            return Response(status_code=401, headers=CHALLENGE)
        return Response(status_code=404 if service is None else 200)

    def _shown(self, service: Service, request: Request) -> Service:
        found = shown(service, self.options.release)
        if "volume_status" in found:
            found["volume_status"] = self.volumes.status(service)
        if request.query_params.get("include") == "deployment" and self.options.release.knows("deployment"):
            state = self.exposed.state(service)
            found["deployment"] = {
                key: value for key, value in state.items() if key not in {"service_name", "namespace"}
            }
        return found

    async def create_service(self, request: Request) -> Response:
        """201 and nothing else."""
        release = self.options.release
        service = normalised(decoded(await request.body()), release)
        service["owner"] = OWNER
        service["labels"]["owner_name"] = "oscar"
        check_volume(service)
        if _members(service) and not (service["environment"].get("secrets") or {}).get("refresh_token"):
            return PlainTextResponse("refresh_token secret is required for federated services", 400)
        login = request.headers.get("authorization", "")
        if _members(service) and (found := await asyncio.to_thread(refusals, service, login)):
            return PlainTextResponse(f"federation auth failed: [{' '.join(found)}]", 401)
        if valid_name(service["name"]) and self.services.get(service["name"]) is not None:
            # Before 4.1 Kubernetes alone said so, which is the race of today.
            status = 400 if release.number >= (4, 1, 0) else 409
            return PlainTextResponse("A service with the provided name already exists", status)
        allowed = self.cluster.allowed_images
        if allowed and not any(part in service["image"] for part in allowed):
            why = "is not allowed for pull on the cluster. Check the additional configuration file on 'config.yaml'"
            return PlainTextResponse(f"Error creating the service: image {service['image']} {why}", 500)
        check_objects(service)
        check_storage(service)
        check_regions(service)
        if service["interlink_node_name"] and self._offloading():
            check_mount(service)
        self.volumes.of_service(service)
        if self.faults.slow_create:
            await asyncio.sleep(self.faults.slow_create)
        await asyncio.to_thread(self._create, service)
        if _members(service) and (found := await asyncio.to_thread(expand, service, login)):
            await asyncio.to_thread(roll_back, service, login)
            await asyncio.to_thread(self._delete, service)
            return PlainTextResponse(f"Federation failed; rollback completed: [{' '.join(found)}]", 500)
        return Response(status_code=201)

    async def update_service(self, request: Request) -> Response:
        """204; the whole definition is replaced, owner included if it is not sent, and the token kept.

        With other buckets than before the answer is 500, and the update is made all the same.
        """
        service = normalised(decoded(await request.body()), self.options.release)
        check_volume(service)
        before = self.services.get(service["name"])
        if before is None:
            return Response(status_code=404)
        if (before.get("volume") or {}) != (service.get("volume") or {}):
            return PlainTextResponse("volume updates are not supported after service creation", 400)
        if self.options.serverless and service["interlink_node_name"] and self._offloading():
            # The definition is stored; then a Knative service is looked for, which an interLink service does not have.
            self.services.put(service)
            missing = f'services.serving.knative.dev "{service["name"]}" not found'
            return PlainTextResponse(f"Error updating the service: {missing}", 500)
        check_storage(service)
        await asyncio.to_thread(self._make_buckets, service)
        self.services.put(service)
        await asyncio.to_thread(self.exposed.apply, service)
        owner, old, new = service["owner"], buckets(before), buckets(service)
        trouble = _NO_USER.format(owner) if owner else _NO_OWNER
        refusals = [f"Error creating the service: {trouble}" for bucket in new if bucket not in old]
        refusals += [f"error setting new policies: {_NO_OWNER}" for bucket in old if bucket not in new]
        return PlainTextResponse("".join(refusals), 500) if refusals else Response(status_code=204)

    async def delete_service(self, request: Request) -> Response:
        """204; takes the service's jobs and buckets with it, the latter only if it still has its owner."""
        service = self.services.get(request.path_params["name"])
        if service is None:
            return Response(status_code=404)
        if self.faults.slow_create:
            await asyncio.sleep(self.faults.slow_create)
        whole = await asyncio.to_thread(self._delete, service)
        return Response(status_code=204) if whole else PlainTextResponse(_LEFT_BUCKETS, 500)

    def _create(self, service: Service) -> None:
        present = set(self.buckets.names())
        for name in buckets(service):
            if why := refused_name(name):
                raise RefusedError(500, why)
            if name in present and self.options.release.refuses_used_buckets:
                raise RefusedError(500, f'the bucket "{name}" already exists\n')
        if self.options.release.needs_folders and _without_folder(service):
            self.services.put(service)  # which it has made before it comes to the buckets, and breaks down
            raise RefusedError(500, "")
        self._make_buckets(service)
        self.services.put(service)
        self.exposed.apply(service)

    def _make_buckets(self, service: Service) -> None:
        entries = [*service["input"], *service["output"]]
        for bucket in buckets(service):
            folders = [one["path"].partition("/")[2] for one in entries if one["path"].startswith(f"{bucket}/")]
            self.buckets.create(bucket, folders)
        if mounted := mounted_path(service):  # of a bucket that may be there, and stays
            self.buckets.create(mounted[0], [mounted[1]])

    def _delete(self, service: Service) -> bool:
        for job in self.registry.listing(service["name"]):
            self.registry.delete(service["name"], job)
        self.services.remove(service["name"])
        self.exposed.remove(service["name"])
        self.volumes.drop(service)
        found = buckets(service) if self.options.release.refuses_used_buckets else []
        if found and service["owner"] != OWNER:
            return False
        for bucket in found:
            if bucket not in mounted_path(service)[:1]:
                self.buckets.remove(bucket)
        return True

    # ---- jobs ----

    async def submit(self, request: Request) -> Response:
        """201 and nothing else; who asks must have the service's token."""
        service, refused = self._called(request)
        if service is None:
            return refused
        wanted = request.headers.get("x-delegated-job-id", "")
        body = await request.body()
        if self.options.release.wants_records:
            try:
                json.loads(body)["Records"][0]["requestParameters"]
            except ValueError:
                return PlainTextResponse("invalid character looking for beginning of value", 500)
            except (KeyError, TypeError, IndexError):
                return Response(status_code=500)  # a panic
        await asyncio.to_thread(self.registry.submit, service, body, wanted)
        return Response(status_code=201)

    async def run(self, request: Request) -> Response:
        """The answer of the service, which waits for it."""
        service, refused = self._called(request)
        return refused if service is None else await self.exposed.run(service, await request.body())

    def _called(self, request: Request) -> tuple[Service | None, Response]:
        """The service that a call with its token is for, or how the call is refused."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme != "Bearer":
            return None, Response(status_code=401)
        if len(token) != TOKEN_LENGTH:  # taken for a JWT, which nobody here can check; two handlers write their text
            text = (
                "token is malformed: token contains an invalid number of segments"
                + "Error getting oidc manager for issuer ''"
            )
            return None, PlainTextResponse(text, 502)
        service = self.services.get(request.path_params["name"])
        if service is None or not hmac.compare_digest(service["token"].encode(), token.encode()):
            return None, Response(status_code=401)
        return service, Response()

    async def list_jobs(self, request: Request) -> Response:
        """Jobs in the order of their names, in pages."""
        name = request.path_params["name"]
        if self.faults.forbidden_as_empty:
            return Response()
        if self.services.get(name) is None:
            return Response(status_code=404)
        found = self.registry.listing(name)
        release = self.options.release
        if not release.pages_jobs or self.faults.flat_job_list:
            await self._throttle(2)
            return JSONResponse({job: before_suspended(entry) for job, entry in found.items()})
        if not release.shows_suspended:
            found = {job: entry for job, entry in found.items() if entry["status"] != "Suspended"}
        await self._throttle(1 + min(len(found), self.faults.page_size))
        try:
            after = read_page_token(request.query_params.get("page", ""))
        except TimeoutError:
            return Response(status_code=500)
        except ValueError as error:
            return PlainTextResponse(f"invalid continue token: continue key is not valid: {error}", 500)
        rest = [job for job in found if job > after]
        page = rest[: self.faults.page_size]
        answer: dict[str, Any] = {"jobs": {job: found[job] for job in page}}
        if len(rest) > len(page):
            answer["next_page"] = page_token(page[-1])
        return JSONResponse(answer)

    async def _throttle(self, requests: int) -> None:
        """Wait as OSCAR's client of Kubernetes does: a list costs one request and one more for each job's pod."""
        rate = self.faults.requests_per_second
        if rate > 0:
            now = time.monotonic()
            self._free_at = max(self._free_at, now - _BURST / rate) + requests / rate
            await asyncio.sleep(max(self._free_at - now, 0.0))

    async def delete_jobs(self, request: Request) -> Response:
        """204; only the jobs that succeeded, unless ``all=true``."""
        name = request.path_params["name"]
        if self.services.get(name) is None:
            return Response(status_code=404)
        everything = request.query_params.get("all", "").lower() == "true"
        for job, entry in self.registry.listing(name).items():
            if everything or entry["status"] == "Succeeded":
                await asyncio.to_thread(self.registry.delete, name, job)
        return Response(status_code=204)

    async def read_log(self, request: Request) -> Response:
        """200 with the text; 404 when the job has none yet, 500 when it has no pod."""
        if self.faults.forbidden_as_empty:
            return Response()
        name = request.path_params["name"]
        if self.services.get(name) is None:
            return Response(status_code=404)
        try:
            text = await asyncio.to_thread(self.registry.log, name, request.path_params["job"])
        except (LookupError, FileNotFoundError):
            return Response(status_code=500)
        if text is None:
            return Response(status_code=404)
        if request.query_params.get("timestamps", "").lower() in {"1", "t", "true"}:
            entry = (await asyncio.to_thread(self.registry.listing, name)).get(request.path_params["job"], {})
            # When each line was printed is not known here; all have the time of the job's start.
            at = str(entry.get("start_time") or entry.get("creation_time") or "").replace("Z", ".000000000Z").encode()
            text = b"".join(at + b" " + line for line in text.splitlines(keepends=True))
        return Response(text, media_type="text/plain")

    async def delete_job(self, request: Request) -> Response:
        """204; the running job is killed."""
        name, job = request.path_params["name"], request.path_params["job"]
        if self.services.get(name) is None:
            return PlainTextResponse("You do not have permission to access this service", 403)
        done = await asyncio.to_thread(self.registry.delete, name, job)
        return Response(status_code=204 if done else 404)


def _members(service: Service) -> list[Any]:
    return list((service.get("federation") or {}).get("members") or [])


def _without_folder(service: Service) -> list[str]:
    """Paths of one word among those of which a server makes buckets, or looks for them."""
    entries = [one for one in service["input"] if one["storage_provider"].startswith("minio.")] + service["output"]
    return [one["path"] for one in entries if "/" not in one["path"].strip(" /")]
