"""What a person may choose about the controllers; everything has a default that suits production."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from api.validation import DEFAULT, Switches
from controllers.machine.garbage import SweepLimits
from controllers.machine.model import Limits

DEFAULT_REGISTRY = "mcr.microsoft.com/aks/kaito"


def utc_now() -> datetime:
    """The wall clock; tests hand in another."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class WorkspaceSettings:
    """Of the Workspace controller.

    Attributes:
        registry: where the images of presets are.
        machine_api: the cluster serves Machines; found out before the controller is added.
        max_concurrent: Workspaces that are reconciled at the same time.
        switches: what is admitted; the webhook must have the same.
    """

    registry: str = DEFAULT_REGISTRY
    machine_api: bool = True
    max_concurrent: int = 5
    switches: Switches = DEFAULT
    clock: Callable[[], datetime] = utc_now


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
