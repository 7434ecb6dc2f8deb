"""The one question that webhook, controller and command line ask: may this be, and what is to be said about it?

In: the new object, the stored one if there is one, the switches, what is known of the cluster. Out: a ``Verdict``.
Pure, and total: whatever is written, however large or deep, there is an answer.
"""

from __future__ import annotations

from dataclasses import replace

from api.model import Obj
from api.validation.create import validate_create
from api.validation.switches import DEFAULT, LENIENT, Switches
from api.validation.update import unchanged, validate_update
from api.validation.violation import Verdict, Violation
from api.validation.warn import warnings
from api.validation.world import UNSEEN, World


def judge(new: Obj, old: Obj | None = None, *, switches: Switches = DEFAULT, world: World = UNSEEN) -> Verdict:
    """The verdict on creating ``new``, or on replacing ``old`` by it."""
    try:
        if old is None:
            found = validate_create(new, switches=switches, world=world)
        elif unchanged(old, new):
            return Verdict()
        else:
            found = validate_update(old, new, switches=switches, world=world)
        said = [] if found else warnings(new, switches=switches, world=world)
    except RecursionError:
        found, said = [Violation("", "the object is nested too deeply", "no Workspace needs 500 levels")], []
    return Verdict(tuple(found), tuple(said))


def judge_for_any(new: Obj, old: Obj | None = None, *, world: World = UNSEEN) -> Verdict:
    """The verdict of the most lenient operator there may be: what it refuses, every operator refuses."""
    first = judge(new, old, switches=LENIENT, world=world)
    if first.admitted:
        return first
    own_nodes = judge(new, old, switches=replace(LENIENT, node_auto_provisioning=False), world=world)
    return own_nodes if own_nodes.admitted else first
