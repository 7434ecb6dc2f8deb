"""Kubernetes quantities are read exactly."""

from __future__ import annotations

import re
from decimal import Decimal

import pytest

from api import quantity
from api.errors import InvalidQuantity


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("50Gi", Decimal(50 * 1024**3)),
        ("400", Decimal(400)),
        (3, Decimal(3)),
        ("500m", Decimal("0.5")),
        ("1e3", Decimal(1000)),
        ("1E", Decimal(10) ** 18),
        (".5k", Decimal(500)),
        ("-2", Decimal(-2)),
        ("0", Decimal(0)),
    ],
)
def test_reads(text: str | int, value: Decimal) -> None:
    """Binary, decimal, milli and exponent forms; each also fits the CRD's pattern."""
    assert quantity.parse(text) == value
    assert re.search(quantity.PATTERN, str(text))


@pytest.mark.parametrize("text", ["", "Gi", "1 Gi", "1gb", "1.2.3", "ten"])
def test_refuses(text: str) -> None:
    """What is no quantity is refused with an example of one."""
    with pytest.raises(InvalidQuantity, match="50Gi"):
        quantity.parse(text)


def test_bytes_round_up() -> None:
    """A fraction of a byte counts as one."""
    assert quantity.to_bytes("1500m") == 2
    assert quantity.render_gib(quantity.to_bytes("7.12Gi")) == "7.12Gi"
