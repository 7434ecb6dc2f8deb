"""Following one Workspace from its manifest to its first answer, step by step, for a person who waits.

In: what the API server says now about the Workspace, its Machines and its pods. Out: which steps are done and
what the next one waits for. :func:`observe_steps` and :func:`observe_tuning` are pure; :func:`follow` asks the
server, four times a second.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kaito.console import step
from kaito.errors import CliError
from kaito.kube import WORKSPACES
from manager.client import Client
from manager.errors import NotFound
from manager.resources import PODS
from manager.types import Obj, Resource

MACHINES = Resource("karpenter.sh", "v1alpha5", "machines", "Machine", namespaced=False)

STEPS = (
    "operator made a Machine",
    "GPU node joined the cluster (simulated)",
    "inference pod started",
    "vLLM loaded the model and answers",
)
TUNING_STEPS = (
    "operator made a Machine",
    "GPU node joined the cluster (simulated)",
    "tuning pod started",
    "dataset fetched, base model loaded",
    "adapter trained",
    "adapter pushed to the registry",
)
_TUNED = {"Training": 4, "Saving": 5, "Pushing": 5, "Succeeded": 5}  # steps that are done in a stage of the run
_POLL = 0.25  # seconds


@dataclass(frozen=True, slots=True)
class Observation:
    """How far a Workspace has come.

    Attributes:
        done: how many of :data:`STEPS` are complete.
        detail: what the next step waits for, in the operator's words.
        failed: it will not get any further by itself.
    """

    done: int
    detail: str
    failed: bool = False


Observe = Callable[[Obj, list[Obj], list[Obj]], Observation]


def observe_steps(workspace: Obj, machines: list[Obj], pods: list[Obj]) -> Observation:
    """How far the Workspace has come; pure."""
    ready = _condition(workspace, "WorkspaceReady")
    if ready.get("status") == "True":
        return Observation(len(STEPS), "")
    reason = str(ready.get("message") or "")
    if any(_started(pod) for pod in pods):
        return Observation(3, reason)
    if _condition(workspace, "ResourceReady").get("status") == "True":
        return Observation(2, reason)
    if machines:
        return Observation(1, reason)
    return Observation(0, reason)


def observe_tuning(workspace: Obj, machines: list[Obj], pods: list[Obj]) -> Observation:
    """How far a Workspace that tunes has come; pure."""
    ready = _condition(workspace, "WorkspaceReady")
    if ready.get("status") == "True":
        return Observation(len(TUNING_STEPS), "")
    status, reason = workspace.get("status") or {}, str(ready.get("message") or "")
    before = observe_steps(workspace, machines, pods)
    stage = (status.get("tuning") or {}).get("stage")
    return Observation(max(before.done, _TUNED.get(str(stage), 0)), reason, failed=status.get("state") == "Failed")


async def follow(
    client: Client,
    name: str,
    namespace: str,
    *,
    timeout: float,
    steps: Sequence[str] = STEPS,
    observe: Observe = observe_steps,
) -> Obj:
    """Show each step while it runs; returns the Workspace once WORKSPACEREADY is True.

    Raises:
        CliError: it failed for good, or the time was up (exit code 3); the message is the operator's own word.
    """
    deadline = time.monotonic() + timeout
    workspace: Obj = {}
    seen = Observation(0, "")
    for index, title in enumerate(steps):
        with step(title) as line:
            while seen.done <= index:
                workspace, seen = await _observe(client, name, namespace, observe)
                if seen.done > index:
                    break
                line.detail = seen.detail
                if seen.failed:
                    raise CliError(f"Workspace {name} failed: {seen.detail}")
                if time.monotonic() > deadline:
                    raise CliError(
                        f"Workspace {name} was not ready after {timeout:.0f} s: {seen.detail or 'no status yet'}",
                        "give it longer with --timeout, or look around with `kaito up` and `kaito apply`",
                        exit_code=3,
                    )
                await asyncio.sleep(_POLL)
    return workspace


async def _observe(client: Client, name: str, namespace: str, observe: Observe) -> tuple[Obj, Observation]:
    try:
        workspace = await client.get(WORKSPACES, name, namespace)
    except NotFound as error:
        raise CliError(f"Workspace {name} was deleted while it was waited for") from error
    selector = f"kaito.sh/workspace={name}"
    machines = (await client.list(MACHINES, label_selector=selector)).items
    pods = (await client.list(PODS, namespace, label_selector=selector)).items
    return workspace, observe(workspace, machines, pods)


def _condition(obj: Obj, kind: str) -> Obj:
    for condition in (obj.get("status") or {}).get("conditions") or []:
        if condition.get("type") == kind:
            return dict(condition)
    return {}


def _started(pod: Obj) -> bool:
    statuses = (pod.get("status") or {}).get("containerStatuses") or []
    return any("running" in (status.get("state") or {}) for status in statuses)
