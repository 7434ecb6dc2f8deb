"""What ``kaito skus`` prints: instance types, filtered, with prices, joined by sizing.

In: a filter or a name as typed. Out: a table, JSON, YAML or names on standard output. Sizes in JSON are bytes,
prices per hour.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

from api import catalog
from api.catalog import Sku
from api.errors import InvalidQuantity
from api.quantity import render_gib, to_bytes
from api.sizing import GpuFacts, ModelFacts, Price, PriceBook, Sizing, size, unusable
from kaito.errors import CliError
from kaito.known import known_preset, known_sku
from kaito.pricefile import prices as price_book
from kaito.rows import Obj, plain, print_data, print_facts, print_table

_HEAD = [
    "INSTANCE TYPE",
    "CLOUD",
    "GPUS",
    "GPU MEMORY",
    "GPU",
    "CC",
    "VCPU",
    "MEMORY",
    "PER HOUR",
    "SPOT",
    "NOTE",
]


@dataclass(frozen=True, slots=True)
class SkuFilter:
    """What ``skus list`` was asked for; empty and False mean all."""

    search: str = ""
    cloud: str = ""
    gpu: str = ""
    min_memory: str = ""
    usable: bool = False
    fits: str = ""
    context: int | None = None
    region: str | None = None


def print_skus(wanted: SkuFilter, prices: Path | None, output: str) -> None:
    """Print the instance types that pass the filter.

    Raises:
        CliError: the preset of ``fits``, the cloud or the memory is not one (exit code 2).
    """
    if wanted.cloud and wanted.cloud not in ("azure", "aws", "arc"):
        raise CliError(f"--cloud {wanted.cloud}: expected azure, aws or arc", exit_code=2)
    try:
        least = to_bytes(wanted.min_memory) if wanted.min_memory else 0
    except InvalidQuantity as error:
        raise CliError(
            f"--min-memory {wanted.min_memory}: {error.message}", error.next_step, exit_code=2
        ) from error
    model = ModelFacts.of(known_preset(wanted.fits)) if wanted.fits else None
    book, today = price_book(prices), datetime.now(UTC).date()
    rows: list[tuple[Sku, Sizing | None]] = []
    for item in catalog.skus():
        if not _is_wanted(item, wanted, least) or (wanted.usable and unusable(item, model, today)):
            continue
        sizing = None
        if model is not None:
            if unusable(item, model, today):
                continue
            sizing = size(model, GpuFacts.of(item), context=wanted.context)
            if not sizing.fits:
                continue
        rows.append((item, sizing))
    if output == "table":
        head = _HEAD + (["NODES", "LAYOUT", "TOKENS"] if model is not None else [])
        print_table(head, [_sku_row(item, sizing, book, wanted.region, today) for item, sizing in rows])
    else:
        objs = [sku_obj(item, book.find(item.instance_type, wanted.region), sizing) for item, sizing in rows]
        print_data(objs, [item.instance_type for item, _ in rows], output)


def print_sku(instance_type: str, prices: Path | None, output: str) -> None:
    """Print one instance type.

    Raises:
        CliError: the catalogue does not know it (exit code 2).
    """
    item = known_sku(instance_type, "")
    price = price_book(prices).find(item.instance_type)
    if output == "table":
        print_facts(_sku_facts(item, price, datetime.now(UTC).date()))
    else:
        print_data(sku_obj(item, price, None), [item.instance_type], output)


def _is_wanted(item: Sku, wanted: SkuFilter, least: int) -> bool:
    return (
        wanted.search.lower() in item.instance_type.lower()
        and (not wanted.cloud or item.cloud == wanted.cloud)
        and wanted.gpu.lower() in item.gpu_model.lower()
        and item.total_gpu_memory >= least
    )


def _sku_row(item: Sku, sizing: Sizing | None, book: PriceBook, region: str | None, today: date) -> list[str]:
    price = book.find(item.instance_type, region)
    row = [
        item.instance_type,
        item.cloud,
        str(item.gpus),
        render_gib(item.total_gpu_memory),
        item.gpu_model,
        str(item.compute_capability or ""),
        str(item.vcpus or ""),
        render_gib(item.memory) if item.memory else "",
        f"{price.on_demand:.2f} {price.currency}" if price and price.on_demand is not None else "",
        f"{price.spot:.2f}" if price and price.spot is not None else "",
        f"retired {item.retired}" if item.is_retired(today) else "see `show`" if item.notes else "",
    ]
    if sizing is not None:
        row += [str(sizing.nodes), str(sizing.layout), str(sizing.max_model_len)]
    return row


def _sku_facts(item: Sku, price: Price | None, today: date) -> list[tuple[str, str]]:
    gpus = f"{item.gpus} x {item.gpu_model} with {render_gib(item.per_gpu_memory)}"
    if item.reported_gpu_memory:
        gpus += f" (a program sees {render_gib(item.reported_gpu_memory)})"
    money = ""
    if price and price.on_demand is not None:
        spot = f", {price.spot:.2f} on spot" if price.spot is not None else ""
        money = f"{price.on_demand:.2f} {price.currency} per hour{spot} ({price.region}, as of {price.date})"
    tense = "retired" if item.is_retired(today) else "to be retired"
    return [
        ("Instance type", item.instance_type),
        ("Cloud", item.cloud),
        ("GPUs", gpus),
        ("Compute capability", str(item.compute_capability or "")),
        ("Machine", f"{item.vcpus} vCPU, {render_gib(item.memory)} memory" if item.vcpus and item.memory else ""),
        ("NVMe", "yes" if item.nvme else ""),
        ("Price", money or "not known; --prices FILE adds it"),
        ("Price from", price.source if price else ""),
        ("Retirement", f"{tense} on {item.retired} ({item.retired_source})" if item.retired else ""),
        ("Notes", "; ".join(item.notes)),
    ]


def sku_obj(item: Sku, price: Price | None, sizing: Sizing | None) -> Obj:
    """An instance type as JSON."""
    obj = plain(item) | {"price": plain(price) if price else None}
    if sizing is not None:
        from kaito.plan.verdict import sizing_obj

        obj["sizing"] = sizing_obj(sizing)
    return obj
