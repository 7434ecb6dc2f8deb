"""The history of a Workspace: what it asked for, as ControllerRevisions, newest number last.

In: an observation. Out: actions, and the number of what is asked for now. Pure. A revision is named by the hash of
its content, so going back to an earlier specification gives its revision the newest number instead of a twin.
"""

from __future__ import annotations

from typing import Final

from api import keys
from controllers.resources import WORKSPACES
from controllers.workspace.children import Whose, whose
from controllers.workspace.model import Action, Annotate, Apply, DeleteOwned, Observation
from controllers.workspace.owned import annotated, digest, owned_metadata
from manager.resources import CONTROLLERREVISIONS
from manager.types import Obj

HALVES: Final = ("resource", "inference", "tuning")
KEPT: Final = 10
_LETTERS = 10  # of the hash, in the name


def content(obj: Obj) -> Obj:
    """The parts of a Workspace that a revision holds."""
    return {half: obj[half] for half in HALVES if obj.get(half) is not None}


def revision_steps(obs: Observation) -> tuple[int, tuple[Action, ...]]:
    """The number of the current specification, and what makes the stored history say so."""
    mark = digest(content(obs.obj))
    name = f"{obs.name}-{mark[:_LETTERS]}"
    actions: list[Action] = []
    own: dict[str, Obj] = {}
    for stored in obs.children.revisions:
        found = whose(obs.name, obs.uid, stored)
        if found is Whose.OURS:
            own[str(stored["metadata"]["name"])] = stored
        elif found is Whose.LEFTOVER and stored["metadata"]["name"] == name:
            return 0, (DeleteOwned(CONTROLLERREVISIONS, stored["metadata"]["uid"], name),)
    highest = max((number(item) for key, item in own.items() if key != name), default=0)
    current = number(own[name]) if name in own else 0
    if current <= highest:
        current = highest + 1
        actions.append(Apply(CONTROLLERREVISIONS, _body(obs, name, mark, current)))
    older = sorted((item for key, item in own.items() if key != name), key=number)
    actions += [
        DeleteOwned(CONTROLLERREVISIONS, item["metadata"]["uid"], item["metadata"]["name"])
        for item in older[: max(len(older) - (KEPT - 1), 0)]
    ]
    if (obs.obj["metadata"].get("annotations") or {}).get(keys.WORKSPACE_HASH) != mark:
        actions.append(Annotate(WORKSPACES, obs.name, ((keys.WORKSPACE_HASH, mark),)))
    return current, tuple(actions)


def number(revision: Obj) -> int:
    """The place of a stored revision in the history."""
    return int(revision.get("revision") or 0)


def _body(obs: Observation, name: str, mark: str, place: int) -> Obj:
    body = {
        "apiVersion": CONTROLLERREVISIONS.api_version,
        "kind": CONTROLLERREVISIONS.kind,
        "metadata": {**owned_metadata(obs), "name": name},
        "revision": place,
        "data": content(obs.obj),
    }
    return annotated(body, {keys.WORKSPACE_HASH: mark})
