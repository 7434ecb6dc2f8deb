"""What nodes cost: prices with their date and source, or none at all.

In: the packaged prices (``api/catalog/prices.json``) or a user's file of the same shape. Out: a price per hour, or
None: a price that nobody can cite is never made up. Money is a float here because it is shown and compared, never
added up into an account.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class Price:
    """What one instance type costs in one region, per hour. None: not known."""

    instance_type: str
    region: str
    on_demand: float | None
    spot: float | None
    currency: str
    date: str
    source: str

    def per_hour(self, *, spot: bool = False) -> float | None:
        """The price of one node."""
        return self.spot if spot else self.on_demand


@dataclass(frozen=True, slots=True)
class PriceBook:
    """Prices by instance type; the first row of a type is the one to take where no region is asked for."""

    prices: tuple[Price, ...] = ()

    @classmethod
    def from_obj(cls, obj: object) -> Self:
        """Read the file format: ``{currency, date, source, prices: [{instanceType, region, onDemand, spot}]}``.

        A row may have a currency, date and source of its own.

        Raises:
            ValueError: it does not have that shape; the text says where.
        """
        if not isinstance(obj, Mapping) or not isinstance(obj.get("prices"), list):
            raise ValueError('it has no list named "prices"')  # noqa: TRY004 - one kind of error for one file
        return cls(tuple(_price(number, row, obj) for number, row in enumerate(obj["prices"])))

    def find(self, instance_type: str, region: str | None = None) -> Price | None:
        """The price of an instance type, in ``region`` if one is named."""
        wanted = instance_type.lower()
        for price in self.prices:
            if price.instance_type.lower() == wanted and (region is None or price.region == region):
                return price
        return None

    def over(self, other: PriceBook) -> PriceBook:
        """These prices before the other's."""
        return PriceBook((*self.prices, *other.prices))


def _price(number: int, row: object, head: Mapping[str, Any]) -> Price:
    if not isinstance(row, Mapping):
        raise ValueError(f"prices[{number}] is not an object")  # noqa: TRY004 - as above
    missing = [name for name in ("instanceType", "region") if not isinstance(row.get(name), str)]
    if missing:
        raise ValueError(f"prices[{number}] has no {missing[0]}")
    amounts = [_amount(number, name, row.get(name)) for name in ("onDemand", "spot")]
    text = {name: str(row.get(name) or head.get(name) or "") for name in ("currency", "date", "source")}
    return Price(
        str(row["instanceType"]),
        str(row["region"]),
        amounts[0],
        amounts[1],
        text["currency"] or "USD",
        text["date"],
        text["source"],
    )


def _amount(number: int, name: str, value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
        raise ValueError(f"prices[{number}].{name} is not an amount per hour: {value!r}")
    return float(value)


@lru_cache(maxsize=1)
def packaged_prices() -> PriceBook:
    """The prices that come with this release, dated and with their source."""
    return PriceBook.from_obj(json.loads((files("api.catalog") / "prices.json").read_text(encoding="utf-8")))
