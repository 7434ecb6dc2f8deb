"""Which instance type to take when nobody named one.

In: a model, instance types, prices, a wish and the day. Out: the choice and, for every other type, why it was
passed over. Pure. One node before several (a model over nodes talks over the network for every token), then the
lowest price per hour; where no fitting type has a price, the least GPU memory, and the choice says so.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date

from api.catalog.types import Sku
from api.quantity import GIB
from api.sizing.engine import engine_limits
from api.sizing.facts import Assumptions, GpuFacts, ModelFacts
from api.sizing.prices import Price, PriceBook
from api.sizing.size import Sizing, size


@dataclass(frozen=True, slots=True)
class Wish:
    """What the user wants of the nodes.

    ``region`` None means wherever the price list's first row is; ``old_gpus`` lets GPUs without bfloat16 be
    chosen; ``copies`` lets a node run several copies of the model.
    """

    cloud: str = "azure"
    region: str | None = None
    spot: bool = False
    context: int | None = None
    nodes: int | None = None
    old_gpus: bool = False
    copies: bool = True


@dataclass(frozen=True, slots=True)
class Passed:
    """An instance type that was not taken, and why."""

    instance_type: str
    reason: str


@dataclass(frozen=True, slots=True)
class Option:
    """An instance type that would do. ``per_hour`` is of all nodes, None where the price is not known."""

    sku: Sku
    sizing: Sizing
    price: Price | None
    per_hour: float | None


@dataclass(frozen=True, slots=True)
class Choice:
    """What would do, the best first, and what would not.

    Attributes:
        by: "price", or "memory" where no fitting type has a price.
        passed: all that were not taken, those that would have fitted first.
    """

    options: tuple[Option, ...]
    by: str
    passed: tuple[Passed, ...]

    @property
    def best(self) -> Option | None:
        """The one to take; None where nothing fits."""
        return self.options[0] if self.options else None


def choose(
    model: ModelFacts,
    skus: Iterable[Sku],
    prices: PriceBook,
    wish: Wish,
    today: date,
    *,
    assumed: Assumptions | None = None,
) -> Choice:
    """The instance types for ``model``, ranked."""
    fitting: list[Option] = []
    refused: list[Passed] = []
    for sku in skus:
        if sku.cloud != wish.cloud:
            continue
        if reason := unusable(sku, model, today, old_gpus=wish.old_gpus):
            refused.append(Passed(sku.instance_type, reason))
            continue
        sizing = size(
            model, GpuFacts.of(sku), context=wish.context, nodes=wish.nodes, assumed=assumed, copies=wish.copies
        )
        if sizing.fits:
            price = prices.find(sku.instance_type, wish.region)
            fitting.append(Option(sku, sizing, price, cost(sizing.nodes, price, spot=wish.spot)))
        else:
            refused.append(Passed(sku.instance_type, sizing.why))
    by = "price" if any(item.per_hour is not None for item in fitting) else "memory"
    ranked = tuple(sorted(fitting, key=lambda item: _rank(item, by)))
    passed = [Passed(item.sku.instance_type, _behind(item, ranked[0], by)) for item in ranked[1:]]
    return Choice(ranked, by, (*passed, *refused))


def _rank(item: Option, by: str) -> tuple[bool, bool, float, int, int, str]:
    money = item.per_hour if by == "price" else None
    return (
        by == "price" and money is None,
        item.sizing.nodes > 1,
        money or 0.0,
        item.sizing.total_gpu_memory,
        item.sizing.nodes,
        item.sku.instance_type,
    )


def cost(nodes: int, price: Price | None, *, spot: bool = False) -> float | None:
    """What so many nodes cost per hour, None where the price is not known."""
    each = price.per_hour(spot=spot) if price else None
    return None if each is None else each * nodes


def unusable(sku: Sku, model: ModelFacts | None, today: date, *, old_gpus: bool = False) -> str | None:
    """Why this type is never chosen on its own, whatever the memory; None where it may be.

    A type that is named is not judged by this: it may exist already, or its user knows better.
    """
    if sku.real_name:
        return f"the cloud has no such type; it is spelled {sku.real_name}"
    if sku.is_retired(today):
        return f"retired by the cloud on {sku.retired}"
    if sku.partial:
        return "it has a part of a GPU only"
    if sku.arch != "amd64":
        return f"its processor is {sku.arch}"
    limits = engine_limits(model, GpuFacts.of(sku))
    if blocking := next((limit.text for limit in limits if limit.blocks), None):
        return blocking
    if not old_gpus and sku.old:
        return f"compute capability {sku.compute_capability}: no bfloat16; used only where it is named"
    return None


def _behind(item: Option, taken: Option, by: str) -> str:
    nodes = item.sizing.nodes
    many = f"{nodes} nodes" if nodes > 1 else "1 node"
    if by == "price" and item.per_hour is None:
        return f"fits on {many}; no price is known for it"
    figure = f"{item.per_hour:.2f} per hour" if by == "price" else _memory(item.sizing)
    if nodes > 1 and taken.sizing.nodes == 1:
        return f"fits on {many} for {figure}; one node is better than several"
    return f"fits on {many} for {figure}"


def _memory(sizing: Sizing) -> str:
    return f"{sizing.total_gpu_memory / GIB:.0f} GiB of GPU memory"
