"""What a person may choose about the controllers; everything has a default that suits production."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

from api.validation import DEFAULT, Switches
from controllers.machine.garbage import SweepLimits
from controllers.machine.model import Limits
from controllers.workspace.podreader import PodReader

DEFAULT_REGISTRY = "mcr.microsoft.com/aks/kaito"


def utc_now() -> datetime:
    """The wall clock; tests hand in another."""
    return datetime.now(UTC)


def installed_version() -> str:
    """The version of this distribution; of a bare checkout, "0"."""
    try:
        return version("kaito")
    except PackageNotFoundError:
        return "0"


@dataclass(frozen=True, slots=True)
class WorkspaceSettings:
    """Of the Workspace controller.

    Attributes:
        registry: where the images of presets are.
        node_api: what is created for a missing node: "machine" or "nodeclaim".
        machine_api: the cluster serves that kind; found out before the controller is added. Otherwise it is looked
            for every ``crd_poll`` seconds, and used from then on.
        gpu_deadline: seconds that a Ready node may take to show its GPUs before somebody has to look.
        node_grace: seconds that a node which matches and is not Ready is waited for before one is made instead.
        max_concurrent: Workspaces that are reconciled at the same time.
        switches: what is admitted; the webhook must have the same.
        pod_reader: asks pods for their own word; None asks them at their own addresses.
        version: of this operator, noted on the workloads that it renders.
        upgrade_workloads: roll out what a newer operator would render, one Workspace at a time; otherwise pods
            are replaced only for an edit, or for the annotation ``kaito.sh/upgrade: "true"``.
    """

    registry: str = DEFAULT_REGISTRY
    node_api: str = "machine"
    machine_api: bool = True
    crd_poll: float = 30.0
    gpu_deadline: float = 300.0
    node_grace: float = 300.0
    max_concurrent: int = 16  # they wait for the API server's answers, not for each other
    switches: Switches = DEFAULT
    version: str = field(default_factory=installed_version)
    upgrade_workloads: bool = False
    clock: Callable[[], datetime] = utc_now
    pod_reader: PodReader | None = None


@dataclass(frozen=True, slots=True)
class MachineSettings:
    """Of the Machine controller. Its reconciles wait for the cloud's replies, so many run at once.

    Attributes:
        kinds_poll: seconds between two looks for a kind that the cluster does not serve yet.
    """

    limits: Limits = field(default_factory=Limits)
    sweep: SweepLimits = field(default_factory=SweepLimits)
    max_concurrent: int = 20
    kinds_poll: float = 5.0
    clock: Callable[[], datetime] = utc_now
