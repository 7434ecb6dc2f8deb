"""Which offerings Azure had none of a moment ago, so that the next Machine starts with another one.

In: refusals for want of capacity, quota or permission. Out: the offerings of a request in the order to try them.
Pure: time is an argument. It is a memory of minutes that only saves useless attempts: nothing is ever left out,
what was refused is merely tried last, and a restart forgets it all.
"""

from __future__ import annotations

from collections.abc import Sequence

from provisioner.azure.body import Offering
from provisioner.errors import (
    CapacityUnavailable,
    CloudError,
    QuotaExceeded,
    SkuNotAllowed,
    SkuNotAvailable,
)

# The errors that say "not this size", after which another one of the request is tried.
_OF_THE_OFFERING = (CapacityUnavailable, QuotaExceeded, SkuNotAllowed, SkuNotAvailable)
_REMEMBERED = 600.0  # seconds: longer than a pool takes to fail and to be removed


class Shortages:
    """Offerings and until when they are tried last. One event loop only."""

    def __init__(self) -> None:
        self._until: dict[Offering, float] = {}

    def __repr__(self) -> str:
        return f"<Shortages offerings={len(self._until)}>"

    def note(self, offering: Offering, error: CloudError, now: float) -> bool:
        """Remember what ``error`` says about the offering; False when it is about something else."""
        if not isinstance(error, _OF_THE_OFFERING):
            return False
        self._until = {key: until for key, until in self._until.items() if until > now}
        self._until[offering] = now + _REMEMBERED
        return True

    def in_order(self, offerings: Sequence[Offering], now: float) -> list[Offering]:
        """All of them: first those that nothing bad is known of, each group in the order given."""
        return sorted(offerings, key=lambda offering: self._until.get(offering, now) > now)
