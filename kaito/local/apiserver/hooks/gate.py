"""Admission by webhooks: what they change, and whether they let a request pass.

In: the attributes of a request, before it is stored. Out: the object as the mutating webhooks left it, warnings,
or the StatusError that the client gets. Mutating webhooks run one after the other, each on the last one's result,
and those that want to (``IfNeeded``) once more when others changed the object after them; validating ones run
together. A webhook that cannot be asked is passed over or refuses, as its failure policy says. Semantics and words
are kube-apiserver's.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import copy
import logging
import uuid
from dataclasses import replace
from typing import Any

import orjson

from kaito.local.apiserver.errors import StatusError, bad_request
from kaito.local.apiserver.hooks.calling import Caller, CallFailed
from kaito.local.apiserver.hooks.converting import Converter
from kaito.local.apiserver.hooks.matching import Attributes, Hook, hooks_of, labels_of
from kaito.local.apiserver.patching import PatchError, json_patch
from kaito.local.apiserver.registry import Registry, ResourceType
from kaito.local.apiserver.storage import Change, Storage
from manager.types import Obj

__all__ = ["Gate"]

_log = logging.getLogger("kaito.local.apiserver.hooks")
_MUTATING = "admissionregistration.k8s.io/mutatingwebhookconfigurations"
_VALIDATING = "admissionregistration.k8s.io/validatingwebhookconfigurations"
_VERSIONS = ("v1", "v1beta1")


class Gate:
    """The webhooks of one server."""

    def __init__(self, storage: Storage, registry: Registry, caller: Caller, converter: Converter) -> None:
        self._storage = storage
        self._registry = registry
        self._caller = caller
        self._converter = converter
        self._mutating: list[Hook] = []
        self._validating: list[Hook] = []
        self._load()
        storage.observe(self._observe)

    @property
    def open(self) -> bool:
        """Whether there is no webhook at all."""
        return not self._mutating and not self._validating

    def _observe(self, change: Change) -> None:
        if change.resource in (_MUTATING, _VALIDATING):
            self._load()

    def _load(self) -> None:
        self._mutating = hooks_of(record.obj for record in self._storage.all(_MUTATING))
        self._validating = hooks_of(record.obj for record in self._storage.all(_VALIDATING))

    # ------------------------------------------------------------------ the two phases

    async def mutate(self, request: Attributes, warnings: list[str]) -> Obj | None:
        """The object after all mutating webhooks, or None when it is as it was.

        Raises:
            StatusError: one of them refused, failed, or answered with a patch that does not fit.
        """
        before = request.obj
        invoked: set[tuple[str, str]] = set()  # reinvocable ones that have been called
        again: set[tuple[str, str]] = set()
        for turn in (1, 2):
            for hook in self._mutating:
                if turn == 2 and hook.identity not in again:
                    continue
                matched = self._match(hook, request)
                if matched is None:
                    continue
                changed = await self._mutated(hook, request, matched, warnings)
                if changed is not None and changed != request.obj:
                    request = replace(request, obj=changed)
                    again |= invoked
                if hook.reinvocable:
                    invoked.add(hook.identity)
            if not again:
                break
        return None if request.obj is before else request.obj

    def validators(self, request: Attributes) -> list[tuple[Hook, ResourceType]]:
        """The validating webhooks that this request concerns."""
        found = ((hook, self._match(hook, request)) for hook in self._validating)
        return [(hook, matched) for hook, matched in found if matched is not None]

    async def validate(self, request: Attributes, warnings: list[str]) -> None:
        """Ask all validating webhooks at once.

        Raises:
            StatusError: the first refusal or failure, in their order.
        """
        asked = self.validators(request)
        answers = await asyncio.gather(
            *(self._judged(hook, request, matched, warnings) for hook, matched in asked), return_exceptions=True
        )
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer

    # ------------------------------------------------------------------ one webhook

    def _match(self, hook: Hook, request: Attributes) -> ResourceType | None:
        resource = request.resource
        labels: Obj = {}
        if resource.namespaced:
            space = self._storage.get("namespaces", "", request.namespace)
            labels = labels_of(space.obj if space else None)
        elif resource.plural == "namespaces" and not resource.group:
            labels = labels_of(request.obj or request.old)
        equivalents = (
            one
            for one in self._registry.all()
            if one.storage_key == resource.storage_key
            and one is not resource
            and (not request.subresource or request.subresource in one.subresources)
        )
        return hook.match(request, labels, equivalents)

    async def _mutated(
        self, hook: Hook, request: Attributes, matched: ResourceType, warnings: list[str]
    ) -> Obj | None:
        seen = await self._converter.run(lambda: request.at(matched))
        response = await self._asked(hook, seen, warnings)
        patch = (response or {}).get("patch")
        if not patch or seen.obj is None or request.operation == "DELETE":
            return None
        try:
            operations = orjson.loads(base64.b64decode(patch, validate=True))
            patched = json_patch(copy.deepcopy(seen.obj), operations)
        except (binascii.Error, ValueError, TypeError, orjson.JSONDecodeError, PatchError) as error:
            words = error.message if isinstance(error, PatchError) else str(error)
            raise StatusError(500, "InternalError", f"Internal error occurred: {words}") from error
        changed = replace(seen, obj=patched)
        return (await self._converter.run(lambda: changed.at(request.resource))).obj

    async def _judged(self, hook: Hook, request: Attributes, matched: ResourceType, warnings: list[str]) -> None:
        await self._asked(hook, await self._converter.run(lambda: request.at(matched)), warnings)

    async def _asked(self, hook: Hook, request: Attributes, warnings: list[str]) -> Obj | None:
        """The response of a webhook that let the request pass; None when its failure is ignored."""
        if request.dry_run and hook.spec.get("sideEffects") not in ("None", "NoneOnDryRun"):
            raise bad_request(f"admission webhook {_quoted(hook.name)} does not support dry run")
        try:
            response = await self._response(hook, request)
        except CallFailed as error:
            if hook.ignores_failure:
                _log.warning("webhook failed, ignored webhook=%s error=%s", hook.name, error)
                return None
            message = f"Internal error occurred: failed calling webhook {_quoted(hook.name)}: {error}"
            details = {"causes": [{"message": f"failed calling webhook {_quoted(hook.name)}: {error}"}]}
            raise StatusError(500, "InternalError", message, details=details) from error
        warnings += [str(one) for one in response.get("warnings") or () if str(one) not in warnings]
        if not response.get("allowed"):
            raise _refusal(hook.name, response.get("status") or response.get("result") or {})
        return response

    async def _response(self, hook: Hook, request: Attributes) -> Obj:
        version = next((one for one in hook.spec.get("admissionReviewVersions") or () if one in _VERSIONS), None)
        if version is None:
            raise CallFailed("webhook does not accept known AdmissionReview versions (v1, v1beta1)")
        api_version = f"admission.k8s.io/{version}"
        uid = str(uuid.uuid4())
        review = {"kind": "AdmissionReview", "apiVersion": api_version, "request": _request(uid, request)}
        seconds = float(hook.spec.get("timeoutSeconds") or 10)
        answer = await self._caller.ask(hook.spec.get("clientConfig") or {}, review, seconds)
        response = answer.get("response")
        if not isinstance(response, dict):
            raise CallFailed("webhook response was absent")
        if version == "v1":
            if response.get("uid") != uid:
                raise CallFailed(f'expected response.uid="{uid}", got "{response.get("uid") or ""}"')
            found = (answer.get("apiVersion"), answer.get("kind"))
            if found != (api_version, "AdmissionReview"):
                wanted = f"{api_version}, Kind=AdmissionReview"
                raise CallFailed(f"expected webhook response of {wanted}, got {found[0]}, Kind={found[1]}")
            if response.get("patch") and response.get("patchType") != "JSONPatch":
                raise CallFailed('webhook returned response.patch but not response.patchType "JSONPatch"')
        return response


def _request(uid: str, request: Attributes) -> Obj:
    sent_resource, sent_kind = request.as_sent
    made: Obj = {
        "uid": uid,
        "kind": _kind(request.kind),
        "resource": _place(request.resource),
        "requestKind": _kind(sent_kind),
        "requestResource": _place(sent_resource),
        "operation": request.operation,
        "userInfo": request.user,
        "object": request.obj,
        "oldObject": request.old,
        "dryRun": request.dry_run,
        "options": request.options,
    }
    if request.name:
        made["name"] = request.name
    if request.namespace:
        made["namespace"] = request.namespace
    if request.subresource:
        made |= {"subResource": request.subresource, "requestSubResource": request.subresource}
    return made


def _kind(kind: tuple[str, str, str]) -> Obj:
    return dict(zip(("group", "version", "kind"), kind, strict=True))


def _place(resource: ResourceType) -> Obj:
    return {"group": resource.group, "version": resource.version, "resource": resource.plural}


def _refusal(name: str, status: Any) -> StatusError:
    """The webhook's status, in the words of the API server."""
    status = status if isinstance(status, dict) else {}
    denied = f"admission webhook {_quoted(name)} denied the request"
    why = status.get("message") or status.get("reason")
    code = int(status.get("code") or 400)
    return StatusError(
        max(code, 400),
        str(status.get("reason") or ""),
        f"{denied}: {why}" if why else f"{denied} without explanation",
        details=status.get("details"),
    )


def _quoted(name: str) -> str:
    return f'"{name}"'
