"""One Workspace at a time: who may have its pods replaced only because the operator is a newer one.

In: Workspaces that are outdated, and the workloads in the cache. Out: yes or no. A Workspace that was let through
holds the gate until its pods are ready again; a workload that an earlier life of this process upgraded holds it as
well, so that a restart does not let a second one through. The state lives in this process alone, on one event
loop; leader election keeps a second process from having its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from api import keys
from controllers.workspace.model import Observation
from controllers.workspace.rollout import unfinished
from manager.types import Obj

RETRY = 60.0  # seconds after which one that has to wait asks again, should nobody have woken it


class UpgradeGate:
    """See the module.

    Args:
        enabled: somebody asked for upgrades of all Workspaces.
        version: this operator's.
        workloads: those of all Workspaces.
    """

    def __init__(self, enabled: bool, version: str, workloads: Callable[[], Iterable[Obj]]) -> None:
        self._enabled = enabled
        self._version = version
        self._workloads = workloads
        self._holder = ""
        self._waiting: dict[str, None] = {}  # in the order in which they came
        self._due = ""

    def __repr__(self) -> str:
        return f"<UpgradeGate {'open' if self._enabled else 'shut'} holder={self._holder or '-'}>"

    @property
    def enabled(self) -> bool:
        """Whether it is worth asking again."""
        return self._enabled

    def enter(self, key: str) -> bool:
        """Whether this Workspace may be upgraded now; it holds the gate from now on."""
        if not self._enabled:
            return False
        taken = self._holder not in ("", key)
        if taken or any(_key(item) != key and self._unfinished(item) for item in self._workloads()):
            self._waiting[key] = None
            return False
        self._waiting.pop(key, None)
        self._holder = key
        return True

    def settle(self, key: str, obs: Observation, *, outdated: bool) -> None:
        """What has been observed of a Workspace; the gate opens for the next when its upgrade is done."""
        if not outdated:
            self._waiting.pop(key, None)
        if not outdated and obs.workload is not None and unfinished(obs.workload, obs.pods) is None:
            self._open(key)

    def forget(self, key: str) -> None:
        """The Workspace is gone."""
        self._waiting.pop(key, None)
        self._open(key)

    def due(self) -> str:
        """The Workspace that waited and may go now; told once, and empty when there is none."""
        due, self._due = self._due, ""
        return due

    def _open(self, key: str) -> None:
        if self._holder == key:
            self._holder = ""
        if not self._holder and self._waiting:
            self._due = next(iter(self._waiting))

    def _unfinished(self, workload: Obj) -> bool:
        notes = workload["metadata"].get("annotations") or {}
        return notes.get(keys.UPGRADED_TO) == self._version and unfinished(workload, ()) is not None


def _key(workload: Obj) -> str:
    return f"{workload['metadata']['namespace']}/{workload['metadata']['name']}"
