"""Reading what an explanation rests on: the operator's own observation, made of lists instead of a cache.

In: a client and a name. Out: an observation with the pods' own words, or a Machine with its node; and the events.
The stores are filled with what the operator watches, and the operator's ``observe`` looks into them. What the
reader may not list is left out and noted, because half an explanation is better than none. A pod is asked directly
and, where that cannot work, through the API server.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from api import keys
from api.adapters import ADAPTERS_PATH
from api.progress import PROGRESS_PATH
from api.validation.switches import LENIENT
from controllers.resources import WORKSPACES
from controllers.settings import DEFAULT_REGISTRY
from controllers.workspace.lastwords import last_line
from controllers.workspace.model import Observation, PodReport
from controllers.workspace.nodeapi import api_of
from controllers.workspace.observe import observe
from controllers.workspace.pace import asking
from controllers.workspace.podreader import LIMIT_SECONDS, HttpPodReader, PodReader, parse_report
from controllers.workspace.tuning.runs import of_job
from kaito.explain.stores import Lists, stores_of
from manager.client import Client
from manager.errors import ApiError, ConnectionFailed, Forbidden, NotFound
from manager.resources import EVENTS_V1, NODES
from manager.types import Obj, Resource

_PROXY_SECONDS = 3.0
_LOG_LINES = 20


@dataclass(frozen=True, slots=True)
class Seen:
    """What was read about a Workspace."""

    obs: Observation
    events: tuple[Obj, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SeenMachine:
    """What was read about a Machine."""

    machine: Obj
    nodes: tuple[Obj, ...]
    events: tuple[Obj, ...]
    notes: tuple[str, ...] = ()


async def see_workspace(client: Client, name: str, namespace: str, reader: PodReader | None = None) -> Seen:
    """Everything around one Workspace.

    Raises:
        NotFound: there is none.
        ApiError: the server does not answer, or does not let the Workspace itself be read.
    """
    obj = await client.get(WORKSPACES, name, namespace)
    node_api = api_of(obj)
    lists = Lists()
    stores = stores_of(lists, [node_api.resource] if await _serves(client, node_api.resource) else [])
    notes = await lists.fill(client, namespace, obj)
    # How the operator was started is not known: what some operator admits is no fault.
    obs = await observe(client, stores, obj, DEFAULT_REGISTRY, LENIENT, node_api=node_api)
    reports, events = await asyncio.gather(
        _ask(client, asking(obs), reader), _events(client, [namespace, "default", "kube-system"])
    )
    obs = replace(obs, reports=reports, pods=tuple(await _with_last_words(client, obs.pods)))
    return Seen(obs, tuple(events), tuple(notes))


async def see_machine(client: Client, resource: Resource, name: str) -> SeenMachine:
    """One Machine (or NodeClaim) and its node.

    Raises:
        NotFound: there is none.
        ApiError: the server does not answer, or does not let it be read.
    """
    machine = await client.get(resource, name)
    machine = {"kind": resource.kind, "apiVersion": resource.api_version, **machine}
    node, notes = str((machine.get("status") or {}).get("nodeName") or ""), []
    nodes: list[Obj] = []
    if node:
        try:
            nodes.append(await client.get(NODES, node))
        except NotFound:
            notes.append(f"its node {node} is gone")
        except Forbidden:
            notes.append("you may not read nodes, so what its node says is left out")
    events = await _events(client, ["default", "kube-system"])
    return SeenMachine(machine, tuple(nodes), tuple(events), tuple(notes))


async def _serves(client: Client, resource: Resource) -> bool:
    try:
        await client.list(resource, limit=1)
    except NotFound:
        return False
    except Forbidden:
        return True
    return True


async def _events(client: Client, namespaces: Sequence[str]) -> list[Obj]:
    async def of(namespace: str) -> list[Obj]:
        try:
            return (await client.list(EVENTS_V1, namespace)).items
        except (NotFound, Forbidden):
            return []

    lists = await asyncio.gather(*(of(item) for item in dict.fromkeys(namespaces)))
    return [event for items in lists for event in items]


async def _ask(client: Client, pods: Iterable[Obj], reader: PodReader | None) -> dict[str, PodReport]:
    pods = list(pods)
    direct = reader or HttpPodReader()
    try:
        answers = await asyncio.gather(*(_word(client, pod, direct) for pod in pods))
    finally:
        await direct.close()
    return {str(pod["metadata"]["name"]): answer for pod, answer in zip(pods, answers, strict=True)}


async def _word(client: Client, pod: Obj, direct: PodReader) -> PodReport:
    """The pod's own answer: at its address, or through the API server, whichever comes."""
    own, proxied = await asyncio.gather(direct.read(pod), _through_the_server(client, pod))
    return proxied if own.failed and not proxied.failed else own


async def _through_the_server(client: Client, pod: Obj) -> PodReport:
    meta = pod["metadata"]
    base = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}:{keys.SERVER_PORT}/proxy"

    async def get(path: str) -> Any:
        try:
            return await client.request("GET", f"{base}{path}")
        except NotFound:
            return None

    try:
        async with asyncio.timeout(_PROXY_SECONDS):
            if of_job(pod):
                return parse_report(await get(PROGRESS_PATH), None, tuning=True)
            progress, adapters = await asyncio.gather(get(PROGRESS_PATH), get(ADAPTERS_PATH))
        if progress is None and adapters is None:
            return PodReport(failed="the API server passes nothing on to it")
        return parse_report(progress, adapters)
    except TimeoutError:
        return PodReport(failed=f"no answer within {LIMIT_SECONDS:g} s")
    except (ApiError, ConnectionFailed, ValueError) as error:
        return PodReport(failed=str(error))


async def _with_last_words(client: Client, pods: Iterable[Obj]) -> list[Obj]:
    """The pods; where a crashed container left no message, with the last line of its log as that."""
    return list(await asyncio.gather(*(_with_log(client, pod) for pod in pods)))


async def _with_log(client: Client, pod: Obj) -> Obj:
    status = pod.get("status") or {}
    statuses = []
    changed = False
    for container in status.get("containerStatuses") or []:
        state, last = container.get("state") or {}, container.get("lastState") or {}
        for where, previous in ((state, False), (last, True)):
            ended = where.get("terminated") or {}
            if not ended.get("exitCode") or ended.get("message") or container.get("ready"):
                continue
            if line := await _last_log_line(client, pod, str(container.get("name") or ""), previous=previous):
                where = {**where, "terminated": {**ended, "message": line}}
                container = {**container, "lastState" if previous else "state": where}
                changed = True
            break
        statuses.append(container)
    return {**pod, "status": {**status, "containerStatuses": statuses}} if changed else pod


async def _last_log_line(client: Client, pod: Obj, container: str, *, previous: bool) -> str:
    meta = pod["metadata"]
    query = {"container": container, "tailLines": str(_LOG_LINES), **({"previous": "true"} if previous else {})}
    try:
        async with asyncio.timeout(_PROXY_SECONDS):
            path = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}/log"
            return last_line(await client.text(path, query=query))
    except (TimeoutError, ApiError, ConnectionFailed):
        return ""  # the node is gone, or keeps no logs of the process before
