"""How long the stages of Workspaces took, remembered for the next ones.

In: durations read off live objects, each once. Out: the usual duration by instance type, model and stage. The
manager's memory is the only store, on purpose: every duration can be read again from the conditions of Machines
and pods that exist, so a restarted operator knows what the objects tell in the pass that it makes anyhow, and
there is nothing to migrate, to lock or to grant rights for. What took place on objects that are gone is forgotten
with the process. Bounded: the newest samples of each key, the most recent keys.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from statistics import median
from typing import NamedTuple

from controllers.workspace.model import Past, Stage, Usual

_SAMPLES = 20
_KEYS = 1000


class Kind(NamedTuple):
    """What is alike enough to take alike: the machine's type and the model's weights."""

    instance_type: str
    model: str  # name of the preset, or of what takes its place
    weights_bytes: int | None


class Took(NamedTuple):
    """One stage that was completed. ``source`` is the uid of the object that shows it."""

    stage: Stage
    source: str
    seconds: float


class History:
    """See the module. Belongs to one event loop."""

    def __init__(self) -> None:
        self._samples: OrderedDict[tuple[Stage, str, str], dict[str, float]] = OrderedDict()

    def __repr__(self) -> str:
        return f"<History keys={len(self._samples)} samples={sum(map(len, self._samples.values()))}>"

    def record(self, kind: Kind, took: Iterable[Took]) -> None:
        """Remember what was seen; the same object's stage counts once."""
        for item in took:
            key = _key(kind, item.stage)
            samples = self._samples.setdefault(key, {})
            if item.source in samples:
                continue
            samples[item.source] = item.seconds
            self._samples.move_to_end(key)
            if len(samples) > _SAMPLES:
                del samples[next(iter(samples))]
            if len(self._samples) > _KEYS:
                self._samples.popitem(last=False)

    def past(self, kind: Kind) -> Past:
        """The usual duration of each stage that was seen for this kind."""
        found = {stage: self._samples.get(_key(kind, stage)) for stage in Stage}
        return {stage: Usual(median(seen.values()), len(seen)) for stage, seen in found.items() if seen}


def _key(kind: Kind, stage: Stage) -> tuple[Stage, str, str]:
    # A machine's creation has nothing to do with the model that will run there.
    model = "" if stage in (Stage.MACHINE, Stage.NODE) else f"{kind.model}/{kind.weights_bytes or ''}"
    return stage, kind.instance_type, model
