"""Job: observe its pods, decide, and carry it out."""

from __future__ import annotations

from manager.builder import ControllerBuilder
from manager.errors import ApiError, Conflict, NotFound
from manager.manager import Manager
from manager.ownwrites import OwnWrites
from manager.resources import JOBS, PODS
from manager.selectors import selector_from
from manager.types import Obj, Request, Result

from .. import pods as p
from ..acting import Children, Owners, is_namespace_ending
from ..ownership import sort_out
from ..templates import pod_from_template
from ..times import Clock
from ..world import World
from .decide import Verdict, decide
from .indexes import give_index


class JobReconciler:
    """Runs the pods of each Job until it is done."""

    def __init__(self, manager: Manager, world: World, clock: Clock) -> None:
        self._client = manager.live
        self._world = world
        self._clock = clock
        self._events = manager.events("job-controller")
        self._owners = Owners(manager.live, JOBS, world.jobs)
        self._own = OwnWrites(lambda: world.pods.resource_version)
        self._children = Children(self._client, PODS, self._own, self._events)

    async def reconcile(self, request: Request) -> Result:
        """Start what is missing, end what is too much, pronounce the verdict."""
        group = str(request)
        job = self._owners.get(request)
        if job is None:
            self._own.forget(group)
            return Result()
        plan = decide(job, await self._pods(job, group), self._clock())
        if plan.remove_job:
            await self._remove(job)
            return Result()
        try:
            wanted = [new_pod(job, index) for index in plan.create]
            await self._children.create(job, group, wanted)
            await self._children.delete(job, group, plan.delete)
        except ApiError as error:
            # The status below would count pods that are not there.
            if not is_namespace_ending(error):
                raise
            return Result()
        await self._owners.report(job, plan.status)
        if plan.verdict is not None:
            self._tell(job, plan.verdict)
        return Result(requeue_after=plan.look_again)

    async def _pods(self, job: Obj, group: str) -> list[Obj]:
        seen = self._own.view(group, self._world.candidates(self._world.pods, job))
        claims = sort_out(job, selector_from(p.spec_of(job).get("selector")), seen)
        return await self._children.claim(JOBS, job, group, claims)

    async def _remove(self, job: Obj) -> None:
        try:
            await self._client.delete(
                JOBS, p.name_of(job), p.namespace_of(job), uid=p.uid_of(job), propagation="Background"
            )
        except (NotFound, Conflict):
            pass  # gone already

    def _tell(self, job: Obj, verdict: Verdict) -> None:
        if verdict.kind == "Failed":
            self._events.event(job, "Warning", verdict.reason, verdict.message)
        elif verdict.kind == "Complete":
            self._events.event(job, "Normal", "Completed", "Job completed")
        else:
            reason = "Suspended" if verdict.status == "True" else "Resumed"
            self._events.event(job, "Normal", reason, verdict.message)


def new_pod(job: Obj, index: int | None) -> Obj:
    """A pod of the Job, with the labels that tell which Job it is of, in both spellings."""
    pod = pod_from_template(p.spec_of(job).get("template") or {}, job)
    name, uid = p.name_of(job), p.uid_of(job)
    pod["metadata"]["labels"] |= {
        "batch.kubernetes.io/job-name": name,
        "batch.kubernetes.io/controller-uid": uid,
        "job-name": name,
        "controller-uid": uid,
    }
    return pod if index is None else give_index(pod, job, index)


def add(manager: Manager, world: World, clock: Clock) -> None:
    """Register the controller."""
    reconciler = JobReconciler(manager, world, clock)
    ControllerBuilder(manager, "job").for_(JOBS).owns(PODS).options(max_concurrent=5).build(reconciler)
