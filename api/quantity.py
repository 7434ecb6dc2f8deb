"""Kubernetes quantities ("50Gi", "500m", "1e3") as numbers, and back.

Exact: Decimal inside, so that "0.1" is a tenth. Only what the catalogue, sizing and machines need.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated, Final

from pydantic import BeforeValidator

from api.errors import InvalidQuantity

PATTERN: Final = (
    r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))"
    r"(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$"
)

GIB: Final = 1024**3

_BINARY: Final = {
    unit: Decimal(1024) ** power for power, unit in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"), 1)
}
_DECIMAL: Final = {
    **{unit: Decimal(1000) ** power for power, unit in enumerate(("k", "M", "G", "T", "P", "E"), 1)},
    "m": Decimal("1e-3"),
    "u": Decimal("1e-6"),
    "n": Decimal("1e-9"),
}
_SHAPE: Final = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))([KMGTPE]i|[numkMGTPE])?")
_EXPONENT: Final = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)[eE][+-]?\d+")


def parse(value: str | int | float) -> Decimal:
    """The number that a quantity means, in its base unit (bytes, cores, pieces).

    Raises:
        InvalidQuantity: it is not one.
    """
    text = str(value).strip()
    if _EXPONENT.fullmatch(text):
        return Decimal(text)
    match = _SHAPE.fullmatch(text)
    if match is None:
        raise InvalidQuantity(f"{value!r} is not a quantity", next_step="Write a number with a unit, such as 50Gi")
    number, unit = match.groups()
    return Decimal(number) * (_BINARY.get(unit) or _DECIMAL.get(unit, Decimal(1)) if unit else Decimal(1))


def to_bytes(value: str | int | float) -> int:
    """A quantity in whole bytes, rounded up."""
    return int(parse(value).to_integral_value(rounding="ROUND_CEILING"))


def render_gib(size: int) -> str:
    """Bytes for a person, in GiB with at most two decimals: "7.12Gi"."""
    return f"{size / GIB:.2f}".rstrip("0").rstrip(".") + "Gi"


Quantity = str | int
Quantities = Annotated[dict[str, Quantity], BeforeValidator(lambda value: {} if value is None else value)]
