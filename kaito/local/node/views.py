"""What is known about one pod at one moment, as plain values: the input of `decide.py` and `status.py`.

The worker of the pod (`pods.py`) fills these in from the API object and the runs on disk. Nothing here
acts, waits or reads a clock. Clock times are seconds since the epoch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from kaito.local.node.backoff import BackOff
from kaito.local.node.logs import parse_time
from kaito.local.node.probes import Kind as ProbeKind
from kaito.local.node.probes import ProbeState
from kaito.local.node.runtime import Exit
from manager.types import Obj


class Role(StrEnum):
    """What a container is to its pod. A sidecar is an init container that keeps running."""

    INIT = "init"
    SIDECAR = "sidecar"
    MAIN = "main"


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a container could not be started at the last try."""

    reason: str
    message: str
    retry_at: float


@dataclass(frozen=True, slots=True)
class Run:
    """One run: the first has number 0."""

    number: int
    started_at: str
    exit: Exit | None


@dataclass(frozen=True, slots=True)
class ContainerView:
    """One container of the pod."""

    spec: Obj
    role: Role
    run: Run | None = None
    previous: Exit | None = None
    probes: ProbeState = field(default_factory=ProbeState)
    trouble: Trouble | None = None
    backoff: BackOff = field(default_factory=BackOff)

    @property
    def name(self) -> str:
        return str(self.spec["name"])

    @property
    def running(self) -> bool:
        return self.run is not None and self.run.exit is None

    @property
    def exit(self) -> Exit | None:
        """How the newest run ended, if it has."""
        return self.run.exit if self.run else None

    @property
    def started(self) -> bool:
        """Running, and past its startup probe."""
        return self.running and (not self.spec.get(ProbeKind.STARTUP.field) or self.probes.startup.passed is True)

    @property
    def ready(self) -> bool:
        """What the status shows: an init container is ready when it has succeeded."""
        if self.role is Role.INIT:
            return self.exit is not None and self.exit.exit_code == 0
        return self.started and (
            not self.spec.get(ProbeKind.READINESS.field) or self.probes.readiness.passed is True
        )

    @property
    def retry_at(self) -> float:
        """When it may be started (again)."""
        if self.trouble is not None:
            return self.trouble.retry_at
        if self.exit is not None:
            return self.backoff.until(parse_time(self.exit.finished_at))
        return 0.0


@dataclass(frozen=True, slots=True)
class Ending:
    """A decision that the pod is over, whatever its containers do: the status' phase, reason and message."""

    phase: str
    reason: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class PodView:
    """The pod and its containers in the order of the spec, init containers first."""

    pod: Obj
    containers: tuple[ContainerView, ...]
    pod_ip: str = ""
    host_ip: str = ""
    started_at: float | None = None
    deleting: bool = False
    ending: Ending | None = None

    @property
    def restart_policy(self) -> str:
        return str(self.pod["spec"].get("restartPolicy") or "Always")

    def of(self, *roles: Role) -> list[ContainerView]:
        """The containers with one of these roles."""
        return [c for c in self.containers if c.role in roles]


def role_of(spec: Obj, init: bool) -> Role:
    """The role of a container of `spec.initContainers` or `spec.containers`."""
    if not init:
        return Role.MAIN
    return Role.SIDECAR if spec.get("restartPolicy") == "Always" else Role.INIT


def restarts(container: ContainerView, policy: str) -> bool:
    """Whether a container that has ended is to be started again."""
    failed = container.exit is None or container.exit.exit_code != 0
    if container.role is Role.SIDECAR:
        return True
    if container.role is Role.INIT:
        return failed and policy != "Never"
    return policy == "Always" or (policy == "OnFailure" and failed)
