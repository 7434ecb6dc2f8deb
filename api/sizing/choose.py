"""Which instance type to take when nobody named one.

In: a model, instance types, prices, a wish and the day. Out: the choice and, for every other type, why it was
passed over. Pure. One node before several (a model over nodes talks over the network for every token), then the
lowest price per hour; where no fitting type has a price, the least GPU memory, and the choice says so.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date

from api.catalog.types import OLD_COMPUTE_CAPABILITY, Sku
from api.quantity import GIB
from api.sizing.engine import engine_limits
from api.sizing.facts import Assumptions, GpuFacts, ModelFacts
from api.sizing.prices import Price, PriceBook
from api.sizing.size import Sizing, size


@dataclass(frozen=True, slots=True)
class Wish:
    """What the user wants of the nodes. ``region`` None means wherever the price list's first row is."""

    cloud: str = "azure"
    region: str | None = None
    spot: bool = False
    context: int | None = None
    nodes: int | None = None


@dataclass(frozen=True, slots=True)
class Passed:
    """An instance type that was not taken, and why."""

    instance_type: str
    reason: str


@dataclass(frozen=True, slots=True)
class Choice:
    """The instance type that was taken; ``sizing`` is None where none fits.

    Attributes:
        by: "price", or "memory" where no fitting type has a price.
        price: of one node, None where it is not known.
        passed: the others, those that would have fitted first.
    """

    sku: Sku | None
    sizing: Sizing | None
    by: str
    price: Price | None
    passed: tuple[Passed, ...]


def choose(
    model: ModelFacts,
    skus: Iterable[Sku],
    prices: PriceBook,
    wish: Wish,
    today: date,
    *,
    assumed: Assumptions | None = None,
) -> Choice:
    """The instance type for ``model``."""
    fitting: list[tuple[Sku, Sizing]] = []
    refused: list[Passed] = []
    for sku in skus:
        if sku.cloud != wish.cloud:
            continue
        if reason := unusable(sku, model, today):
            refused.append(Passed(sku.instance_type, reason))
            continue
        sizing = size(model, GpuFacts.of(sku), context=wish.context, nodes=wish.nodes, assumed=assumed)
        if sizing.fits:
            fitting.append((sku, sizing))
        else:
            refused.append(Passed(sku.instance_type, sizing.why))
    if not fitting:
        return Choice(None, None, "price", None, tuple(refused))
    costs = {sku.instance_type: cost(sizing, prices, wish) for sku, sizing in fitting}
    by = "price" if any(value is not None for value in costs.values()) else "memory"

    def rank(pair: tuple[Sku, Sizing]) -> tuple[bool, bool, float, int, int, str]:
        sku, sizing = pair
        money = costs[sku.instance_type]
        return (
            by == "price" and money is None,
            sizing.nodes > 1,
            money if by == "price" and money is not None else 0.0,
            sizing.total_gpu_memory,
            sizing.nodes,
            sku.instance_type,
        )

    (sku, sizing), *others = sorted(fitting, key=rank)
    passed = [Passed(o.instance_type, _behind(o, s, sizing, costs, by)) for o, s in others]
    return Choice(sku, sizing, by, prices.find(sku.instance_type, wish.region), (*passed, *refused))


def cost(sizing: Sizing, prices: PriceBook, wish: Wish) -> float | None:
    """What the nodes of a sizing cost per hour, None where the price is not known."""
    price = prices.find(sizing.gpu.name, wish.region)
    each = price.per_hour(spot=wish.spot) if price else None
    return None if each is None else each * sizing.nodes


def unusable(sku: Sku, model: ModelFacts | None, today: date) -> str | None:
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
    if sku.compute_capability is not None and sku.compute_capability < OLD_COMPUTE_CAPABILITY:
        return f"compute capability {sku.compute_capability}: no bfloat16; used only where it is named"
    return None


def _behind(sku: Sku, other: Sizing, taken: Sizing, costs: dict[str, float | None], by: str) -> str:
    money = costs[sku.instance_type]
    many = f"{other.nodes} nodes" if other.nodes > 1 else "1 node"
    if by == "price" and money is None:
        return f"fits on {many}; no price is known for it"
    figure = f"{money:.2f} per hour" if by == "price" and money is not None else _memory(other)
    if other.nodes > 1 and taken.nodes == 1:
        return f"fits on {many} for {figure}; one node is better than several"
    return f"fits on {many} for {figure}"


def _memory(sizing: Sizing) -> str:
    return f"{sizing.total_gpu_memory / GIB:.0f} GiB of GPU memory"
