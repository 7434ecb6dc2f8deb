"""Objects by their labels without looking at all of them: an index function, and the look-up that goes with it.

In: a store to which ``label_pairs`` was added as an index, and labels that must all be there. Out: the objects
that have them, in no particular order. The cost is that of the rarest of the labels, not that of the store: what a
thousand objects ask about a thousand others must not be a million comparisons.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from manager.meta import labels
from manager.store import Store
from manager.types import Obj

BY_LABEL = "label"


def label_pairs(obj: Obj) -> list[str]:
    """The index function: every label as ``key=value``."""
    return pairs_of(labels(obj))


def pairs_of(wanted: Mapping[str, str]) -> list[str]:
    """Labels as the values of the index."""
    return [f"{key}={value}" for key, value in wanted.items()]


def labelled(store: Store, wanted: Mapping[str, str], index: str = BY_LABEL) -> Iterable[Obj]:
    """The objects that carry all of these labels; none when none are wanted.

    Raises:
        KeyError: the store has no such index.
    """
    found = [store.by_index(index, pair) for pair in pairs_of(wanted)]
    for obj in min(found, key=len, default=[]):
        if wanted.items() <= labels(obj).items():
            yield obj
