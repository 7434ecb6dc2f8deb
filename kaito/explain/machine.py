"""The chain of one Machine: from its request to a node that can take work.

In: the Machine, its node and the events. Out: a :class:`Chain`. Pure. The words are those that the Workspace
controller shows for such a Machine.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from api import keys
from api.conditions import READY, Status, conditions_of, find, parse_time
from api.reasons import Reason
from controllers.workspace.findings import passes, turn_of
from controllers.workspace.nodeapi import api_of
from controllers.workspace.unfinished import blocking_failure, progress
from kaito.explain import moments
from kaito.explain.chain import Chain, Verdict
from kaito.explain.moments import Moment
from manager.types import Obj


def explain_machine(
    machine: Obj, nodes: Sequence[Obj], events: Sequence[Obj], now: datetime, notes: Sequence[str] = ()
) -> Chain:
    """The chain of one Machine."""
    meta = machine["metadata"]
    ready = find(conditions_of(machine), READY)
    labels = meta.get("labels") or {}
    look = (f"kubectl describe {str(machine.get('kind') or 'machine').lower()} {meta['name']}",)
    verdict = None
    going = bool(meta.get("deletionTimestamp"))
    if going:
        waits = ready.message if ready is not None and ready.status != Status.TRUE and ready.message else ""
        text = f"It is being deleted{': ' if waits else ''}{waits}"
        verdict = Verdict(str(Reason.DELETING), text, str(turn_of(Reason.DELETING)), True, look)
    elif ready is None or ready.status != Status.TRUE:
        api = api_of(machine)
        why = blocking_failure((machine,), api) or progress(machine, api)
        verdict = Verdict(why.reason, why.message, str(turn_of(why.reason)), passes(why.reason), look)
    node = str((machine.get("status") or {}).get("nodeName") or "")
    owner = (labels.get(keys.WORKSPACE_NAMESPACE_LABEL), labels.get(keys.WORKSPACE_LABEL))
    more = (f"it was made for the Workspace {owner[0]}/{owner[1]}",) if owner[1] else ()
    return Chain(
        kind=str(machine.get("kind") or "Machine"),
        name=str(meta["name"]),
        namespace="",
        state="Deleting" if going else "Ready" if verdict is None else "NotReady",
        moments=moments.in_order(_moments(machine, [item for item in nodes if _is(item, node)], events)),
        blocking=verdict,
        notes=(*notes, *more),
        facts={"workspace": f"{owner[0]}/{owner[1]}" if owner[1] else None, "node": node or None},
    )


def _moments(machine: Obj, nodes: Sequence[Obj], events: Sequence[Obj]) -> Iterator[Moment]:
    yield from moments.of_machine(machine)
    for node in nodes:
        yield from moments.of_node(node, since=parse_time(machine["metadata"].get("creationTimestamp")))
    name = {str(machine["metadata"]["name"])}
    names = {"Machine": name, "NodeClaim": name, "Node": {str(node["metadata"]["name"]) for node in nodes}}
    yield from moments.of_events(events, names)


def _is(node: Obj, name: str) -> bool:
    return bool(node["metadata"]["name"] == name)
