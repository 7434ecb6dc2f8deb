"""Subresources with a meaning of their own: scale, binding, eviction, tokens, and streams from the kubelet.

In: a call whose path names one of them. Out: its response. ``status``, ``finalize`` and their like are plain
reads and writes of a part of the object and are handled there.
"""

from __future__ import annotations

import copy
import datetime as dt
from collections.abc import Callable
from dataclasses import replace

from aiohttp import web

from kaito.local.apiserver.auth import ServiceAccountTokens
from kaito.local.apiserver.builtin import subresource
from kaito.local.apiserver.conversion import from_storage
from kaito.local.apiserver.deletion import DeleteOptions, rfc3339
from kaito.local.apiserver.errors import StatusError, bad_request, conflict, method_not_allowed, not_found
from kaito.local.apiserver.handlers import Call, Handlers
from kaito.local.apiserver.hooks.matching import Attributes
from kaito.local.apiserver.kubelet import KubeletProxy
from kaito.local.apiserver.patching import PatchError, json_merge, json_patch
from kaito.local.apiserver.reads import get
from kaito.local.apiserver.registry import ResourceType
from kaito.local.apiserver.requests import Body
from kaito.local.apiserver.scale import scale_of, with_replicas
from kaito.local.apiserver.storage import Record, Stale, Storage
from kaito.local.apiserver.writes import Draft
from manager.selectors import selector_from
from manager.types import Obj

__all__ = ["SPECIAL", "Subresources", "bind"]

SPECIAL = frozenset({"scale", "binding", "eviction", "token", "log", "exec", "attach", "portforward"})
_TOKEN_SECONDS = 3600
_LEAST_TOKEN_SECONDS = 600
_SUCCESS: Obj = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}


def bind(storage: Storage, resource: ResourceType, namespace: str, name: str, binding: Obj, now: str) -> None:
    """Give a pod its node.

    Raises:
        StatusError: no such pod, it has a node, it is going, or the binding names none.
    """
    record = get(storage, resource, namespace, name)
    node = (binding.get("target") or {}).get("name")
    if not node:
        raise bad_request("target.name: Required value")
    pod = record.copy()
    uid = (binding.get("metadata") or {}).get("uid")
    if uid and uid != pod["metadata"]["uid"]:
        raise conflict(
            resource,
            name,
            f"Precondition failed: UID in precondition: {uid}, UID in object meta: {pod['metadata']['uid']}",
        )
    if pod["metadata"].get("deletionTimestamp"):
        raise conflict(resource, name, f"pod {name} is being deleted, cannot be assigned to a host")
    if pod["spec"].get("nodeName"):
        raise conflict(resource, name, f'pod {name} is already assigned to node "{pod["spec"]["nodeName"]}"')
    pod["spec"]["nodeName"] = node
    annotations = (binding.get("metadata") or {}).get("annotations")
    if annotations:
        pod["metadata"]["annotations"] = {**(pod["metadata"].get("annotations") or {}), **annotations}
    status = pod.setdefault("status", {})
    conditions = [c for c in status.get("conditions") or () if c.get("type") != "PodScheduled"]
    conditions.append({"type": "PodScheduled", "status": "True", "lastProbeTime": None, "lastTransitionTime": now})
    status["conditions"] = conditions
    try:
        storage.update(resource.storage_key, namespace, name, pod, expected=record.revision)
    except Stale:
        raise conflict(resource, name) from None


class Subresources:
    """Answers the special subresources of one server."""

    def __init__(
        self,
        handlers: Handlers,
        kubelet: KubeletProxy,
        accounts: ServiceAccountTokens,
        clock: Callable[[], dt.datetime],
        disruption_budgets: ResourceType,
    ) -> None:
        self._handlers = handlers
        self._storage = handlers.storage
        self._kubelet = kubelet
        self._accounts = accounts
        self._clock = clock
        self._budgets = disruption_budgets

    async def handle(self, call: Call) -> web.StreamResponse:
        """Answer one request."""
        name = call.path.subresource
        method = call.request.method
        if name == "scale":
            return await self._scale(call)
        if name == "log" and method == "GET":
            return await self._kubelet.logs(call.request, call.namespace, call.path.name, call.query)
        if name in ("exec", "attach", "portforward") and method in ("GET", "POST"):
            await self._admit(call, _connection(call), "CONNECT")
            return await self._kubelet.stream(call.request, name, call.namespace, call.path.name, call.query)
        if method == "POST":
            if name == "binding":
                return await self._bind(call)
            if name == "eviction":
                return await self._evict(call)
            if name == "token":
                return await self._token(call)
        raise method_not_allowed()

    async def _admit(self, call: Call, obj: Obj, operation: str = "CREATE", *, old: Obj | None = None) -> Obj:
        """Let webhooks judge and change what a subresource was sent; what comes back is to be done."""
        gate = self._handlers.gate
        if gate.open:
            return obj
        resource, name = call.resource, call.path.subresource
        kind = subresource(resource.plural, name)
        options = {"CREATE": "CreateOptions", "UPDATE": "UpdateOptions"}.get(operation)
        request = Attributes(
            operation=operation,
            resource=resource,
            name=call.path.name,
            namespace=call.namespace,
            kind=(kind.group, kind.version, kind.kind),
            subresource=name,
            obj={"apiVersion": f"{kind.group}/{kind.version}".lstrip("/"), "kind": kind.kind, **obj},
            old=old,
            user=call.user,
            dry_run=call.options.dry_run,
            options={"kind": options, "apiVersion": "meta.k8s.io/v1"} if options else None,
        )
        changed = await gate.mutate(request, call.options.warnings)
        if changed is not None:
            request = replace(request, obj=changed)
        await gate.validate(request, call.options.warnings)
        return obj if changed is None else changed

    async def _scale(self, call: Call) -> web.Response:
        resource, path = call.resource, call.path
        method = call.request.method
        if method not in ("GET", "PUT", "PATCH"):
            raise method_not_allowed()
        if method == "GET":
            record = get(self._storage, resource, call.namespace, path.name)
            current = await self._view(resource, record)
            return call.respond(call.renderer.object(resource, scale_of(resource, current)))
        body = await call.body()
        record = get(self._storage, resource, call.namespace, path.name)
        current = await self._view(resource, record)
        scale = body.value
        if method == "PATCH":
            try:
                if call.content_type.startswith("application/json-patch"):
                    scale = json_patch(scale_of(resource, current), body.value)
                else:
                    scale = json_merge(scale_of(resource, current), body.obj())
            except PatchError as error:
                raise StatusError(error.status, "BadRequest", error.message) from error
        if not self._handlers.gate.open:
            scale = await self._admit(call, Body(scale, []).obj(), "UPDATE", old=scale_of(resource, current))
            record = get(self._storage, resource, call.namespace, path.name)
            current = await self._view(resource, record)
        wanted = with_replicas(resource, copy.deepcopy(current), Body(scale, []).obj())
        if resource.is_crd:
            wanted["metadata"].setdefault("resourceVersion", str(record.revision))
        writer, run = self._handlers.writer, self._handlers.converter.run

        def drafted() -> Draft:
            body = Body(copy.deepcopy(wanted), [])
            return writer.draft_update(resource, call.namespace, path.name, "", body, call.options)

        draft = await run(drafted)
        outcome = await run(lambda: writer.commit(draft))
        changed = await run(lambda: from_storage(resource, outcome.obj))
        return call.respond(call.renderer.object(resource, scale_of(resource, changed)))

    async def _view(self, resource: ResourceType, record: Record) -> Obj:
        return await self._handlers.converter.run(lambda: from_storage(resource, record.obj))

    async def _bind(self, call: Call) -> web.Response:
        binding = await self._admit(call, (await call.body()).obj())
        if not call.options.dry_run:
            now = rfc3339(self._clock())
            bind(self._storage, call.resource, call.namespace, call.path.name, binding, now)
        return call.respond(call.renderer.object(call.resource, _SUCCESS), 201)

    async def _evict(self, call: Call) -> web.Response:
        eviction = await self._admit(call, (await call.body()).obj())
        options = DeleteOptions.parse(eviction.get("deleteOptions") or {})
        options.dry_run = options.dry_run or call.options.dry_run
        pod = get(self._storage, call.resource, call.namespace, call.path.name)
        self._check_budgets(pod.obj, call.namespace)
        self._handlers.writer.delete(call.resource, call.namespace, call.path.name, options)
        return call.respond(call.renderer.object(call.resource, _SUCCESS), 201)

    def _check_budgets(self, pod: Obj, namespace: str) -> None:
        """Refuse an eviction that a disruption budget does not allow (its status is a controller's work)."""
        for record in self._storage.all(self._budgets.storage_key, namespace):
            selector = (record.obj.get("spec") or {}).get("selector")
            if selector is None or not _selects(selector, pod):
                continue
            status = record.obj.get("status") or {}
            if int(status.get("disruptionsAllowed", 1)) <= 0:
                cause = {
                    "reason": "DisruptionBudget",
                    "message": f"The disruption budget {record.name} does not allow this disruption now",
                }
                raise StatusError(
                    429,
                    "TooManyRequests",
                    "Cannot evict pod as it would violate the pod's disruption budget.",
                    details={"causes": [cause]},
                )

    async def _token(self, call: Call) -> web.Response:
        request = await self._admit(call, (await call.body()).obj())
        account = self._storage.get("serviceaccounts", call.namespace, call.path.name)
        if account is None:
            raise not_found(call.resource, call.path.name)
        spec = request.get("spec") or {}
        seconds = int(spec.get("expirationSeconds") or _TOKEN_SECONDS)
        if seconds < _LEAST_TOKEN_SECONDS:
            raise bad_request(
                "spec.expirationSeconds: Invalid value: may not specify a duration less than 10 minutes"
            )
        token, expires = self._accounts.issue(
            call.namespace,
            call.path.name,
            account.obj["metadata"]["uid"],
            audiences=[str(one) for one in spec.get("audiences") or ()],
            seconds=seconds,
            bound=spec.get("boundObjectRef"),
        )
        meta = {"name": call.path.name, "namespace": call.namespace, "creationTimestamp": rfc3339(self._clock())}
        status = {"token": token, "expirationTimestamp": rfc3339(expires)}
        answer = {**request, "metadata": meta, "spec": {**spec, "expirationSeconds": seconds}, "status": status}
        return call.respond(call.renderer.object(call.resource, answer), 201)


def _connection(call: Call) -> Obj:
    """The options of a connection, which are in its query."""
    query = call.request.query
    flags = ("stdin", "stdout", "stderr", "tty")
    options: Obj = {flag: True for flag in flags if query.get(flag, "").lower() in ("1", "t", "true")}
    if "container" in query:
        options["container"] = query["container"]
    if "command" in query:
        options["command"] = query.getall("command")
    if "ports" in query:
        options["ports"] = [int(port) for port in query.getall("ports") if port.isdigit()]
    return options


def _selects(selector: Obj, pod: Obj) -> bool:
    labels = pod["metadata"].get("labels") or {}
    return selector_from(selector).matches(labels)
