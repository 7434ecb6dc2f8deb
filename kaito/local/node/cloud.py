"""The local cloud: instances that are asked for, take a while, and become nodes of this machine.

In: requests of the provisioner (`cloud_api.py` translates HTTP) and faults on request. Out: calls of `join`
when an instance begins to run and of `leave` when it is to go; each is repeated until it succeeds, also
after an agent restart. It owns `instances.json`, which is written before a request is answered: an instance
that was promised exists. It says plainly that it simulates: no instance is a machine, no GPU is there.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from kaito.local.node.journal import Journal
from manager.types import Obj

log = logging.getLogger("kaito.local.node.cloud")

CREATING, RUNNING, DELETING, FAILED = "Creating", "Running", "Deleting", "Failed"
OPERATIONS = ("create", "get", "delete", "launch", "join")
_RETRY = 2.0

_STATUS = {
    "AuthorizationFailed": 403,
    "QuotaExceeded": 403,
    "InstanceExists": 412,
    "NotFound": 404,
    "TooManyRequests": 429,
    "InternalError": 500,
}

Step = Callable[[Obj], Awaitable[None]]


class CloudFailure(Exception):
    """A refused request: HTTP status, code, and seconds to wait if the cloud says so."""

    def __init__(self, status: int, code: str, message: str, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.retry_after = status, code, message, retry_after


@dataclass(slots=True)
class Fault:
    """The next `times` operations of this kind fail so; -1 means all of them.

    `launch` ends an instance in Failed; `join` keeps the node of a running one away. `instance_type`: of instances
    of that type alone.
    """

    operation: str
    code: str
    message: str
    times: int = 1
    retry_after: int | None = None
    instance_type: str = ""

    @classmethod
    def parse(cls, body: Obj) -> Fault:
        """Read a request's body. Raises `CloudFailure` 400."""
        operation = body.get("operation")
        if operation not in OPERATIONS or not body.get("code"):
            raise CloudFailure(400, "BadRequest", f"a fault needs a code and an operation of {OPERATIONS}")
        retry_after = body.get("retryAfter")
        return cls(
            operation=str(operation),
            code=str(body["code"]),
            message=str(body.get("message") or f"simulated failure: {body['code']}"),
            times=int(body.get("times", 1)),
            retry_after=5 if retry_after is None and body["code"] == "TooManyRequests" else retry_after,
            instance_type=str(body.get("instanceType") or ""),
        )


class Cloud:
    """The instances of this machine."""

    def __init__(self, file: Path, delay: float, clock: Callable[[], float]) -> None:
        self._delay = delay
        self._clock = clock
        self._faults: list[Fault] = []
        self._joined: set[str] = set()
        self._wake = asyncio.Event()
        try:
            self._journal = Journal(file)
        except (ValueError, TypeError) as err:
            raise ValueError(f"{file} is not a list of instances ({err}); remove it to start anew") from err
        self._instances: dict[str, Obj] = self._journal.items
        self._moved = dict.fromkeys(self._instances)  # names, in order, that may have somewhere to go

    def __repr__(self) -> str:
        return f"<Cloud {len(self._instances)} instances, {len(self._faults)} faults>"

    # requests

    def create(self, name: str, body: Obj) -> Obj:
        """Begin an instance. Raises `CloudFailure`: 412 if there is one of this name, or a fault."""
        instance_type = str(body.get("instanceType") or "")
        self._fail("create", instance_type)
        if name in self._instances:
            raise CloudFailure(412, "InstanceExists", f"instance {name} exists already")
        instance: Obj = {
            "name": name,
            "instanceType": instance_type,
            "state": CREATING,
            "providerID": str(body.get("providerID") or f"local:///instances/{name}"),
            "nodeName": name,
            "createdAt": datetime.fromtimestamp(self._clock(), UTC).isoformat().replace("+00:00", "Z"),
            "error": None,
            "labels": dict(body.get("labels") or {}),
            "taints": list(body.get("taints") or []),
            "capacity": {k: str(v) for k, v in (body.get("capacity") or {}).items()},
        }
        if launch := self._take("launch", instance_type):
            instance["launchError"] = {"code": launch.code, "message": launch.message}
        self._save(name, instance)
        return public(instance)

    def get(self, name: str) -> Obj:
        """One instance. Raises `CloudFailure` 404, or a fault."""
        self._fail("get", self._type_of(name))
        return public(self._find(name))

    def list(self) -> list[Obj]:
        """All instances. Raises `CloudFailure` for a fault."""
        self._fail("get")
        return [public(i) for i in self._instances.values()]

    def delete(self, name: str) -> None:
        """Begin the end of an instance; again is fine. Raises `CloudFailure` 404, or a fault."""
        self._fail("delete", self._type_of(name))
        instance = self._find(name)
        instance["state"] = DELETING
        self._save(name, instance)

    def add_fault(self, fault: Fault) -> None:
        """Let requests fail."""
        self._faults.append(fault)

    def clear_faults(self) -> None:
        """Let everything succeed again."""
        self._faults.clear()

    def _type_of(self, name: str) -> str:
        return str(self._instances.get(name, {}).get("instanceType", ""))

    def _find(self, name: str) -> Obj:
        if name not in self._instances:
            raise CloudFailure(404, "NotFound", f"instance {name} does not exist")
        return self._instances[name]

    def _take(self, operation: str, instance_type: str = "") -> Fault | None:
        for fault in self._faults:
            if fault.operation == operation and fault.instance_type in ("", instance_type):
                fault.times -= 1
                if fault.times == 0:
                    self._faults.remove(fault)
                return fault
        return None

    def _fail(self, operation: str, instance_type: str = "") -> None:
        if fault := self._take(operation, instance_type):
            raise CloudFailure(_STATUS.get(fault.code, 409), fault.code, fault.message, fault.retry_after)

    def _save(self, name: str, instance: Obj) -> None:
        self._journal.put(name, instance)
        self._look_at(name)

    def _look_at(self, name: str) -> None:
        self._moved[name] = None
        self._wake.set()

    # what follows from them

    async def run(self, join: Step, leave: Step) -> None:
        """Take every instance to where its state says, until cancelled."""
        async with asyncio.TaskGroup() as group:
            busy: set[str] = set()

            def done(name: str, _task: asyncio.Task[None]) -> None:
                busy.discard(name)
                self._look_at(name)

            while True:
                self._wake.clear()
                moved, self._moved = self._moved, {}
                for name in moved:
                    instance = self._instances.get(name)
                    if instance is not None and name not in busy and self._pending(instance):
                        task = group.create_task(self._advance(instance, join, leave), name=f"instance {name}")
                        busy.add(name)
                        task.add_done_callback(partial(done, name))
                await self._wake.wait()

    def _pending(self, instance: Obj) -> bool:
        if instance["state"] == RUNNING:
            return instance["name"] not in self._joined
        return instance["state"] in (CREATING, DELETING)

    async def _advance(self, instance: Obj, join: Step, leave: Step) -> None:
        name = instance["name"]
        try:
            if instance["state"] == CREATING:
                created = datetime.fromisoformat(instance["createdAt"]).timestamp()
                await asyncio.sleep(max(0.0, created + self._delay - self._clock()))
                if instance["state"] == CREATING:  # it may have been deleted meanwhile
                    failed = instance.pop("launchError", None)
                    instance["state"], instance["error"] = (FAILED, failed) if failed else (RUNNING, None)
                    self._save(name, instance)
            elif instance["state"] == RUNNING:
                if fault := self._take("join", instance["instanceType"]):
                    log.debug("node stays away instance=%s reason=%s: %s", name, fault.code, fault.message)
                    await asyncio.sleep(_RETRY)
                    return
                await join(instance)
                self._joined.add(name)
            elif instance["state"] == DELETING:
                await leave(instance)
                self._joined.discard(name)
                self._journal.drop(name)
        except Exception:
            log.exception("instance not taken further, trying again instance=%s", name)
            await asyncio.sleep(_RETRY)


def public(instance: Obj) -> Obj:
    """What a reply shows of an instance."""
    shown = ("name", "instanceType", "state", "providerID", "nodeName", "createdAt", "error")
    return {key: instance[key] for key in shown} | {"simulated": True}
