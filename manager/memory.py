"""The garbage collector, told what kind of process this is: much that stays, little that goes in cycles.

Caches are millions of containers that live as long as the process. With Python's defaults the collector walks
all of them again and again (160 ms for 6,000 pods, in one piece, in the event loop). So it is called less often
from the start, and what is there once the caches are full is set aside for good. What a cache replaces later is
freed by its reference count all the same: objects of JSON have no cycles. Once per process: it is the process's
collector.
"""

from __future__ import annotations

import gc
import logging

log = logging.getLogger("kaito.manager.memory")

THRESHOLDS = (50_000, 20, 100)


class Tuning:
    """The collector's settings while a manager runs; :meth:`undo` brings back what was there before."""

    def __init__(self) -> None:
        self._before: tuple[int, int, int] | None = None
        self._frozen = False

    def begin(self) -> None:
        """Collect less often from now on."""
        self._before = gc.get_threshold()
        gc.set_threshold(*THRESHOLDS)

    def caches_are_full(self) -> None:
        """Set what lives now aside."""
        gc.collect()
        gc.freeze()
        self._frozen = True
        log.debug("caches set aside from garbage collection objects=%d", gc.get_freeze_count())

    def undo(self) -> None:
        """As it was."""
        if self._before is not None:
            gc.set_threshold(*self._before)
            self._before = None
        if self._frozen:
            gc.unfreeze()
            self._frozen = False
