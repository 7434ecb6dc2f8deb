"""How soon a Machine or NodeClaim is made again that somebody deleted.

In: what this process created, and when. Out: until when each name is left alone. A provisioner may delete what
it cannot make, and its next attempt would end the same way in the same second: the first replacement comes at
once, each further one after twice the time. A restart forgets all this, which costs one attempt.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from controllers.workspace.model import Pause

_FIRST, _LONGEST = 5.0, 300.0  # seconds
_FORGIVEN = timedelta(hours=1)  # what lived so long was no failed attempt


class Recreations:
    """See the module. By Workspace ("namespace/name"), so that nothing is kept of one that is gone."""

    def __init__(self) -> None:
        self._made: dict[str, dict[str, tuple[int, datetime]]] = {}

    def __repr__(self) -> str:
        return f"Recreations(workspaces={len(self._made)})"

    def made(self, workspace: str, name: str, now: datetime) -> None:
        """One was created."""
        of_it = self._made.setdefault(workspace, {})
        count, last = of_it.get(name, (0, now))
        of_it[name] = (1 if now - last > _FORGIVEN else count + 1, now)

    def pauses(self, workspace: str) -> Mapping[str, Pause]:
        """By name: how often it was made, and when it may be made next."""
        return {
            name: Pause(count, last + timedelta(seconds=_delay(count)))
            for name, (count, last) in self._made.get(workspace, {}).items()
        }

    def forget(self, workspace: str) -> None:
        """The Workspace is gone."""
        self._made.pop(workspace, None)


def _delay(count: int) -> float:
    return float(min(_LONGEST, _FIRST * 2.0 ** min(count - 2, 10))) if count > 1 else 0.0
