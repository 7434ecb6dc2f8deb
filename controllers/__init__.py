"""The Workspace and Machine reconcilers: observe, decide (pure), act.

In: objects of the API server, through the manager's cache. Out: Machines, nodes' labels, workloads, statuses
and events. The API server and the cloud own all state; both reconcilers can be killed anywhere and started
again. ``kaito`` composes them with a manager and a cloud provider. Importing the package costs nothing: what it
exports comes on first use, so that the command line can ask a pure decision without the framework's HTTP client.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from controllers.machine.garbage import SweepLimits
    from controllers.machine.model import Limits
    from controllers.machine.setup import add_machine_controller
    from controllers.settings import MachineSettings, WorkspaceSettings
    from controllers.workspace.admission import add_workspace_webhook
    from controllers.workspace.setup import add_workspace_controller

_HOMES = {
    "Limits": "controllers.machine.model",
    "MachineSettings": "controllers.settings",
    "SweepLimits": "controllers.machine.garbage",
    "WorkspaceSettings": "controllers.settings",
    "add_machine_controller": "controllers.machine.setup",
    "add_workspace_controller": "controllers.workspace.setup",
    "add_workspace_webhook": "controllers.workspace.admission",
}

__all__ = [
    "Limits",
    "MachineSettings",
    "SweepLimits",
    "WorkspaceSettings",
    "add_machine_controller",
    "add_workspace_controller",
    "add_workspace_webhook",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(home), name)
