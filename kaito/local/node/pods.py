"""One pod on this machine: the worker that observes, decides and acts, again and again.

In: the API object as the informer delivers it, and wake-ups from its containers. Out: processes, and the
pod's status in the API server. It owns the pod's folder (volumes, containers, homes) and its address until
nothing of the pod runs and the API object is gone. A step never waits for a container: stopping is a task,
and its end wakes the worker.

The end of a pod: containers stop within the grace period, the last status is written, then the object is
deleted with grace 0 (only the node may say that nothing runs any more). An object that vanishes earlier
ends the pod the same way, without status. Failing to reach the API server never stops a container.
"""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
from collections.abc import Coroutine
from pathlib import Path

from kaito.local.node.containers import Container
from kaito.local.node.decide import Plan, decide
from kaito.local.node.env import PodFacts
from kaito.local.node.host import Host
from kaito.local.node.logs import parse_time
from kaito.local.node.status import TERMINAL, back_off_message, pod_status
from kaito.local.node.views import Ending, PodView, role_of
from kaito.local.node.volumes import File, MountFailed, TokenRequest, prepare, references, render, token_requests
from manager.client import PatchType
from manager.errors import ApiError, Conflict, ManagerError, NotFound
from manager.resources import PODS
from manager.types import Obj

log = logging.getLogger("kaito.local.node.pods")

_MOUNT_RETRY = 2.0
_API_RETRY = (1.0, 2.0, 5.0, 10.0)
_REFRESH = 60.0  # how often tokens and volumes are looked at without any event
_VANISHED_GRACE = 5.0


class PodWorker:
    """Runs one pod; `update` and `wake` are called by the agent, `run` is its task."""

    def __init__(self, host: Host, pod: Obj) -> None:
        meta = pod["metadata"]
        self.uid = str(meta["uid"])
        self.key = f"{meta.get('namespace', '')}/{meta['name']}"
        self.folder = host.pods / self.uid
        self.containers: list[Container] = []
        self._host = host
        self._pod = pod
        self._references = frozenset(references(pod))  # a pod's volumes and environments cannot be edited
        self._gone = False
        self._evicted: float | None = None  # grace, once the node was taken away
        self._ending: Ending | None = None
        self._started_at: float | None = None
        self._places: dict[str, Path] | None = None
        self._mount_retry_at = 0.0
        self._mount_message = ""
        self._stale = True  # the volumes must be rendered anew
        self._tokens: dict[TokenRequest, tuple[str, float]] = {}
        self._objects: dict[tuple[str, str], Obj | None] = {}
        self._written: Obj | None = None
        self._api_failures = 0
        self._deleted = False
        self._frozen = False
        self._wake = asyncio.Event()
        self._group: asyncio.TaskGroup | None = None

    def __repr__(self) -> str:
        running = sum(1 for c in self.containers if c.attempt is not None and c.attempt.running)
        return f"<PodWorker {self.key} running={running}/{len(self.containers)}>"

    @property
    def pod(self) -> Obj:
        """The newest object."""
        return self._pod

    @property
    def vanished(self) -> bool:
        """Whether the object is gone, so that another pod may have its name."""
        return self._gone

    @property
    def address(self) -> str:
        """Where its containers listen; the same for as long as the pod lives."""
        host = self._host
        return host.host_ip if self._pod["spec"].get("hostNetwork") else host.addresses.assign(self.uid)

    # what the agent tells it

    def update(self, pod: Obj) -> None:
        """A newer object."""
        old, self._pod = self._pod, pod
        if any(old["metadata"].get(k) != pod["metadata"].get(k) for k in ("labels", "annotations")):
            self._stale = True
        self._wake.set()

    def vanish(self) -> None:
        """The object is gone from the API server."""
        self._gone = True
        self._wake.set()

    def evict(self, grace: float) -> None:
        """The node is taken away: end within `grace` seconds and delete the object."""
        if self._evicted is None:
            self._evicted = grace
            self._wake.set()

    def config_changed(self, kind: str, name: str) -> None:
        """A ConfigMap or Secret of the pod's namespace changed."""
        if (kind, name) in self._references:
            self._stale = True
            self._mount_retry_at = 0.0
            self.retry()

    def retry(self) -> None:
        """What a container waits for may be there now."""
        for container in self.containers:
            container.retry_now()
        self._wake.set()

    async def stop_containers(self, grace: float) -> None:
        """For the agent's own end: stop everything within `grace` seconds, and say nothing to the API server."""
        self._frozen = True
        for container in self.containers:
            container.stop(grace, f"Stopping container {container.name}: the node agent ends")
        async with asyncio.timeout(grace + 10):
            while any(c.attempt is not None and c.attempt.running for c in self.containers):
                await asyncio.sleep(0.02)

    async def release(self) -> None:
        """For the agent's own end: let the containers run on; their supervisors wait for the next agent."""
        self._frozen = True
        for container in self.containers:
            if container.attempt is not None:
                await container.attempt.detach()

    # the loop

    async def run(self) -> None:
        """Until nothing of the pod runs and its object is gone."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            await self._set_up()
            while True:
                self._wake.clear()
                try:
                    wait = await self._step()
                except Exception:
                    # One pod's trouble must not end the agent and all other pods with it.
                    log.exception("pod step failed pod=%s", self.key)
                    wait = 5.0
                if wait is None:
                    break
                try:
                    async with asyncio.timeout(wait):
                        await self._wake.wait()
                except TimeoutError:
                    pass
            for container in self.containers:
                container.end_tasks()
        shutil.rmtree(self.folder, ignore_errors=True)
        self._host.addresses.release(self.uid)

    def _spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        async def guarded() -> None:
            try:
                await work
            except Exception:
                log.exception("task of a pod failed pod=%s", self.key)

        assert self._group is not None  # noqa: S101 - only called from run()
        return self._group.create_task(guarded())

    async def _set_up(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        meta, spec = self._pod["metadata"], self._pod["spec"]
        record = {"name": meta["name"], "namespace": meta.get("namespace", ""), "nodeName": spec.get("nodeName")}
        (self.folder / "pod.json").write_text(json.dumps(record))
        status = self._pod.get("status") or {}
        if status.get("phase") in TERMINAL:
            self._ending = Ending(status["phase"], status.get("reason") or "", status.get("message") or "")
        seen = {
            s["name"]: s
            for field in ("initContainerStatuses", "containerStatuses")
            for s in status.get(field) or []
        }
        for field in ("initContainers", "containers"):
            for container in spec.get(field) or []:
                one = Container(
                    self._host,
                    self._pod,
                    container,
                    role_of(container, field == "initContainers"),
                    self.folder / "containers" / container["name"],
                    self._spawn,
                    self._wake.set,
                )
                await one.adopt(seen.get(one.name))
                self.containers.append(one)
        if status.get("startTime"):
            self._started_at = parse_time(status["startTime"])

    @property
    def _deleting(self) -> bool:
        return self._gone or self._evicted is not None or bool(self._pod["metadata"].get("deletionTimestamp"))

    async def _step(self) -> float | None:
        """One round; seconds until the next one without a wake-up, or None when the pod is over and away."""
        if self._frozen:
            return _REFRESH
        now = self._host.clock()
        waits = [_REFRESH]
        over = self._deleting or self._ending is not None
        if not over:
            self._started_at = self._started_at or now
            waits.append(await self._mount(now))
        view = self._view()
        plan = decide(view, now)
        await self._act(plan, view)
        if plan.wake_at is not None:
            waits.append(plan.wake_at - now)
        view = self._view()
        if not any(c.running for c in view.containers) and self._gone:
            return None
        if not self._gone:
            waits.append(await self._report(view))
        return max(0.0, min(waits)) + 0.001

    def _view(self) -> PodView:
        meta = self._pod["metadata"]
        host = self._host
        address = self.address
        pod = {**self._pod, "status": self._known_status()}
        if self._evicted is not None or self._gone:
            # Nobody wrote a grace period for this end; what the API asked for still bounds it.
            grace = self._evicted if self._evicted is not None else _VANISHED_GRACE
            grace = min(grace, float(meta.get("deletionGracePeriodSeconds") or grace))
            pod = {**pod, "metadata": {**meta, "deletionGracePeriodSeconds": grace}}
        return PodView(
            pod=pod,
            containers=tuple(c.view() for c in self.containers),
            pod_ip=address if self._started_at is not None else "",
            host_ip=host.host_ip,
            started_at=self._started_at,
            deleting=self._deleting,
            ending=self._ending,
        )

    async def _act(self, plan: Plan, view: PodView) -> None:
        if plan.ending is not None:
            self._ending = plan.ending
            self._event("Warning", plan.ending.reason, plan.ending.message)
        for stop in plan.stop:
            self._container(stop.name).stop(stop.grace, stop.why)
        for name in plan.start:
            if self._places is None:
                return  # volumes first; _mount says when to try again
            await self._container(name).start(self._facts(), self._places, self._lookup)
        for container in view.containers:
            if (
                container.exit is not None
                and container.name not in plan.start
                and plan.wake_at == container.retry_at
            ):
                self._event("Warning", "BackOff", back_off_message(container, self._pod))

    def _container(self, name: str) -> Container:
        return next(c for c in self.containers if c.name == name)

    def find(self, name: str) -> Container | None:
        """The container of this name, for the kubelet API."""
        return next((c for c in self.containers if c.name == name), None)

    # volumes

    def _facts(self) -> PodFacts:
        spec = self._pod["spec"]
        return PodFacts(
            pod=self._pod,
            pod_ip=self.address,
            host_ip=self._host.host_ip,
            allocatable=self._host.allocatable(str(spec.get("nodeName", ""))),
        )

    def _lookup(self, kind: str, name: str) -> Obj | None:
        return self._objects.get((kind, name))

    async def _mount(self, now: float) -> float:
        """Make the volumes what they should be; seconds until they must be looked at again."""
        expiring = any(now > renew for _token, renew in self._tokens.values())
        if (self._places is not None and not self._stale and not expiring) or now < self._mount_retry_at:
            return max(0.0, self._mount_retry_at - now) or _REFRESH
        self._stale = False
        try:
            await self._read_objects(now)
            tokens = {request: token for request, (token, _renew) in self._tokens.items()}
            rendered: dict[str, dict[str, File]] = {}
            for volume in self._pod["spec"].get("volumes") or []:
                files = render(volume, self._facts(), self._lookup, tokens)
                if files is not None:
                    rendered[volume["name"]] = files
            self._places = prepare(self._pod, self.folder / "volumes", self._host.claims, rendered)
            self._mount_message = ""
        except (MountFailed, ManagerError) as err:
            self._stale = True
            self._mount_retry_at = now + _MOUNT_RETRY
            if str(err) != self._mount_message:
                self._mount_message = str(err)
                self._event("Warning", "FailedMount", f"MountVolume.SetUp failed: {err}")
            return _MOUNT_RETRY
        self._mount_retry_at = 0.0
        return _REFRESH

    async def _read_objects(self, now: float) -> None:
        namespace = str(self._pod["metadata"].get("namespace", ""))
        for kind, name in self._references:
            self._objects[kind, name] = await self._host.read_object(kind, namespace, name)
        for request in token_requests(self._pod):
            _token, renew = self._tokens.get(request, ("", 0.0))
            if now >= renew:
                token = await self._new_token(request, namespace)
                self._tokens[request] = token, now + 0.8 * request.seconds

    async def _new_token(self, request: TokenRequest, namespace: str) -> str:
        account = self._pod["spec"].get("serviceAccountName") or "default"
        meta = self._pod["metadata"]
        bound = {"apiVersion": "v1", "kind": "Pod", "name": meta["name"], "uid": meta["uid"]}
        body: Obj = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {
                "audiences": [request.audience] if request.audience else [],
                "expirationSeconds": request.seconds,
                "boundObjectRef": bound,
            },
        }
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token"
        answer = await self._host.client.request("POST", path, body=body)
        return str((answer.get("status") or {}).get("token", ""))

    # status

    async def _report(self, view: PodView) -> float:
        """Write the status if it changed, and delete a pod that has ended; seconds until a retry is due."""
        meta = self._pod["metadata"]
        status = pod_status(view, self._host.clock())
        if status["phase"] in TERMINAL and self._ending is None:
            self._ending = Ending(status["phase"])
            self._wake.set()  # sidecars may still run
        try:
            if status != self._written:
                patch = {"metadata": {"uid": self.uid}, "status": status}
                await self._host.client.patch(
                    PODS,
                    meta["name"],
                    patch,
                    namespace=meta.get("namespace"),
                    type=PatchType.STRATEGIC,
                    subresource="status",
                )
                self._written = status
            if self._deleting and not self._deleted and not any(c.running for c in view.containers):
                await self._host.client.delete(
                    PODS, meta["name"], meta.get("namespace"), grace_seconds=0, uid=self.uid
                )
                self._deleted = True
        except (NotFound, Conflict):
            # Gone, or another pod of the same name: the informer will say so. Until then there is nothing to tell.
            self._written = status
            return _REFRESH
        except ManagerError as err:
            delay = _API_RETRY[min(self._api_failures, len(_API_RETRY) - 1)]
            self._api_failures += 1
            level = logging.WARNING if isinstance(err, ApiError) else logging.INFO
            log.log(level, "pod status not written pod=%s error=%s", self.key, err)
            return delay
        self._api_failures = 0
        return _REFRESH

    def _known_status(self) -> Obj:
        """The server's status, with our own conditions as last written: the informer may be behind."""
        status: Obj = self._pod.get("status") or {}
        if self._written is None:
            return status
        ours = {c["type"]: c for c in self._written["conditions"]}
        others = [c for c in status.get("conditions") or [] if c["type"] not in ours]
        return {**status, "phase": self._written["phase"], "conditions": [*others, *ours.values()]}

    def _event(self, type_: str, reason: str, note: str) -> None:
        self._host.recorder.event(self._pod, type_, reason, note, action="Pod")
