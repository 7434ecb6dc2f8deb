"""The Workspace and Machine reconcilers: observe, decide (pure), act.

In: objects of the API server, through the manager's cache. Out: Machines, nodes' labels, workloads, statuses
and events. The API server and the cloud own all state; both reconcilers can be killed anywhere and started
again. ``kaito`` composes them with a manager and a cloud provider.
"""

from __future__ import annotations

from controllers.machine.model import Limits
from controllers.machine.setup import add_machine_controller
from controllers.settings import MachineSettings, WorkspaceSettings
from controllers.workspace.setup import add_workspace_controller

__all__ = [
    "Limits",
    "MachineSettings",
    "WorkspaceSettings",
    "add_machine_controller",
    "add_workspace_controller",
]
