"""Resource quantities: the numbers that requests and allocatable are written in.

In: text such as ``500m``, ``1.5``, ``2Gi``, ``1e3``. Out: exact fractions, so that sums of thirds of a core do
not drift, and text again where a sum goes back into an object.
"""

from __future__ import annotations

import math
import re
from fractions import Fraction
from functools import lru_cache

_SUFFIX: dict[str, Fraction] = {
    "n": Fraction(1, 10**9),
    "u": Fraction(1, 10**6),
    "m": Fraction(1, 1000),
    "": Fraction(1),
    "k": Fraction(10**3),
    "M": Fraction(10**6),
    "G": Fraction(10**9),
    "T": Fraction(10**12),
    "P": Fraction(10**15),
    "E": Fraction(10**18),
    "Ki": Fraction(2**10),
    "Mi": Fraction(2**20),
    "Gi": Fraction(2**30),
    "Ti": Fraction(2**40),
    "Pi": Fraction(2**50),
    "Ei": Fraction(2**60),
}
_QUANTITY = re.compile(r"^([+-]?(?:\d+\.?\d*|\.\d+))(?:[eE]([+-]?\d{1,3})|([numkMGTPE]|[KMGTPE]i)?)$")


def parse_quantity(value: object) -> Fraction:
    """The exact value of a quantity.

    Raises:
        ValueError: it is not a quantity.
    """
    if isinstance(value, int | float):
        return Fraction(str(value))
    return _parsed(str(value))


@lru_cache(4096)  # the same few amounts stand in every node and pod
def _parsed(text: str) -> Fraction:
    found = _QUANTITY.match(text.strip())
    if found is None:
        raise ValueError(f"{text!r} is not a quantity")
    number, exponent, suffix = found.groups()
    scale = Fraction(10) ** int(exponent) if exponent else _SUFFIX[suffix or ""]
    return Fraction(number) * scale


def divide_up(quantity: str, divisor: str) -> int:
    """``quantity / divisor``, rounded up to a whole number, as resourceFieldRef wants it."""
    by = parse_quantity(divisor or "1") or Fraction(1)
    return math.ceil(parse_quantity(quantity) / by)


def add(total: dict[str, Fraction], more: dict[str, Fraction]) -> None:
    """Add ``more`` into ``total``, resource by resource."""
    for name, amount in more.items():
        total[name] = total.get(name, Fraction(0)) + amount


def at_least(total: dict[str, Fraction], floor: dict[str, Fraction]) -> None:
    """Raise each resource of ``total`` to at least that of ``floor``."""
    for name, amount in floor.items():
        total[name] = max(total.get(name, Fraction(0)), amount)


def parse_list(resources: dict[str, object] | None) -> dict[str, Fraction]:
    """A whole resource list; names whose quantity is unreadable are left out."""
    parsed: dict[str, Fraction] = {}
    for name, value in (resources or {}).items():
        try:
            parsed[name] = parse_quantity(value)
        except ValueError:
            continue  # the API server refuses these; nothing better than ignoring one that slipped in
    return parsed
