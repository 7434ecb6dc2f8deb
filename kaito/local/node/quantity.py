"""Resource quantities (`500m`, `1.5Gi`, `2e3`) as exact numbers, for resourceFieldRef and node capacity. Pure."""

from __future__ import annotations

import math
import re
from fractions import Fraction

_PATTERN = re.compile(r"([+-]?(?:\d+(?:\.\d*)?|\.\d+))(?:([eE][+-]?\d+)|([A-Za-z]*))")
_FACTORS = {
    "": Fraction(1),
    **{suffix: Fraction(10) ** (3 * n) for n, suffix in enumerate(("k", "M", "G", "T", "P", "E"), 1)},
    **{suffix: Fraction(1, 10 ** (3 * n)) for n, suffix in enumerate(("m", "u", "n"), 1)},
    **{suffix: Fraction(1024) ** n for n, suffix in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"), 1)},
}


def parse_quantity(text: str) -> Fraction:
    """The exact value. Raises `ValueError` for anything that is not a quantity."""
    found = _PATTERN.fullmatch(str(text).strip())
    if found is None or (found[3] or "") not in _FACTORS:
        raise ValueError(f"not a quantity: {text!r}")
    exponent = Fraction(10) ** int(found[2][1:]) if found[2] else Fraction(1)
    return Fraction(found[1]) * exponent * _FACTORS[found[3] or ""]


def divide_up(quantity: str, divisor: str) -> int:
    """`quantity / divisor`, rounded up to a whole number, as resourceFieldRef wants it."""
    by = parse_quantity(divisor or "1") or Fraction(1)
    return math.ceil(parse_quantity(quantity) / by)
