from __future__ import annotations

from fractions import Fraction

import pytest

from kaito.local.quantities import parse_quantity
from kaito.local.workloads.intstr import resolve, surge_and_unavailable


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", Fraction(1)),
        (4, Fraction(4)),
        ("500m", Fraction(1, 2)),
        ("1.5", Fraction(3, 2)),
        (".5", Fraction(1, 2)),
        ("2Gi", Fraction(2**31)),
        ("1e3", Fraction(1000)),
        ("12E", Fraction(12 * 10**18)),
        ("100k", Fraction(100_000)),
    ],
)
def test_quantities_are_exact(text: object, value: Fraction) -> None:
    """A quantity parses to its exact value, whatever its suffix."""
    assert parse_quantity(text) == value


@pytest.mark.parametrize("text", ["", "x", "1Gib", "1 Gi", "--1"])
def test_other_text_is_refused(text: str) -> None:
    """What is not a quantity raises ValueError."""
    with pytest.raises(ValueError, match="not a quantity"):
        parse_quantity(text)


@pytest.mark.parametrize(
    ("value", "total", "up", "expected"),
    [(3, 10, True, 3), ("25%", 10, True, 3), ("25%", 10, False, 2), ("3", 10, True, 3), (None, 9, True, 0)],
)
def test_percentages_round_as_asked(value: object, total: int, up: bool, expected: int) -> None:
    """A percentage is of the total and rounds as the caller says; numbers stay."""
    assert resolve(value, total, round_up=up) == expected


def test_surge_and_unavailable_are_never_both_zero() -> None:
    """A rolling update that allows nothing would never move, so one pod may be missing."""
    assert surge_and_unavailable("0%", "25%", 1) == (0, 1)
    assert surge_and_unavailable("25%", "25%", 4) == (1, 1)
