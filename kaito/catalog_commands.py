"""What ``kaito presets`` and ``kaito skus`` print: rows of the catalogues, filtered, and joined by sizing.

In: filters as typed. Out: a table, JSON, YAML or names on standard output. The JSON's field names are those of
the catalogue's files, and stable. Sizes in JSON are bytes, prices per hour.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from api import catalog
from api.catalog import Preset, Sku
from api.errors import InvalidQuantity, UnknownPreset
from api.quantity import render_gib, to_bytes
from api.sizing import GpuFacts, ModelFacts, Price, PriceBook, Sizing, engine_limits, size, unusable
from kaito.console import note, out, table
from kaito.errors import CliError
from kaito.pricefile import prices as price_book

Obj = dict[str, Any]
_PRESET_HEAD = ["NAME", "WEIGHTS", "CONTEXT", "CACHE/TOKEN", "ATTENTION", "TUNING", "LICENSE", "WEIGHTS FROM"]
_PRESET_WIDE = ["QUANTIZATION", "TOOLS", "REASONING", "DISK", "ALIASES"]
_SKU_HEAD = [
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
class PresetFilter:
    """What ``presets list`` was asked for; empty and False mean all."""

    search: str = ""
    era: str = ""
    tunable: bool = False
    tools: bool = False
    reasoning: bool = False
    fits: str = ""
    context: int | None = None


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


# ------------------------------------------------------------------------------ presets


def print_presets(wanted: PresetFilter, output: str) -> None:
    """Print the presets that pass the filter.

    Raises:
        CliError: the instance type of ``fits`` or the era is unknown (exit code 2).
    """
    if wanted.era and wanted.era not in ("v0.3", "v0.12"):
        raise CliError(f"--era {wanted.era}: expected v0.3 or v0.12", exit_code=2)
    gpu = GpuFacts.of(known_sku(wanted.fits, "--fits")) if wanted.fits else None
    found = [item for item in catalog.presets() if _passes(item, wanted, gpu)]
    if output in ("table", "wide"):
        head = _PRESET_HEAD + (_PRESET_WIDE if output == "wide" else [])
        _table(head, [_preset_row(item, wide=output == "wide") for item in found])
    else:
        _data([preset_obj(item) for item in found], [item.name for item in found], output)


def print_preset(name: str, folder: Path | None, on: str, context: int | None, output: str) -> None:
    """Print one preset, from the catalogue or from a folder with a model's files.

    Raises:
        CliError: there is none, the folder holds no model, or the instance type is unknown (exit code 2).
    """
    preset = _from_folder(name, folder) if folder is not None else _known_preset(name)
    sizing = None
    if on:
        sizing = size(ModelFacts.of(preset), GpuFacts.of(known_sku(on, "--on")), context=context)
    if output in ("table", "wide"):
        from kaito.plan.render import sizing_facts

        facts = _preset_facts(preset)
        if sizing is not None:
            nodes = f"{sizing.nodes} x {sizing.gpu.name}"
            limits = engine_limits(sizing.model, sizing.gpu)
            blocked = any(limit.blocks for limit in limits)
            verdict = ": does not run" if blocked else "" if sizing.fits else ": does not fit"
            facts += [("On", nodes + verdict), *sizing_facts(sizing)]
            facts.append(("Engine", "; ".join(limit.text for limit in limits)))
            facts.append(("Why not", "" if sizing.fits else sizing.why))
        _facts(facts)
        return
    obj = preset_obj(preset)
    if sizing is not None:
        from kaito.plan.verdict import sizing_obj

        obj["sizing"] = sizing_obj(sizing)
    _data(obj, [preset.name], output)


def _passes(item: Preset, wanted: PresetFilter, gpu: GpuFacts | None) -> bool:
    text = " ".join((item.name, *item.aliases, item.architecture, item.license or "", item.family)).lower()
    return (
        wanted.search.lower() in text
        and (not wanted.era or item.era == wanted.era)
        and (not wanted.tunable or item.supports_tuning)
        and (not wanted.tools or item.tool_parser is not None)
        and (not wanted.reasoning or item.reasoning_parser is not None)
        and (gpu is None or _fits(ModelFacts.of(item), gpu, wanted.context))
    )


def _fits(model: ModelFacts, gpu: GpuFacts, context: int | None) -> bool:
    """Whether the model runs on one such node."""
    blocked = any(limit.blocks for limit in engine_limits(model, gpu))
    return not blocked and size(model, gpu, context=context, nodes=1).fits


def _preset_row(item: Preset, *, wide: bool) -> list[str]:
    row = [
        item.name,
        render_gib(item.weights_bytes) if item.weights_bytes else "",
        str(item.context_limit or ""),
        f"{item.kv_bytes_per_token / 1024:.0f}Ki" if item.kv_bytes_per_token else "",
        item.attention or "",
        "yes" if item.supports_tuning else "",
        item.license or "",
        _source(item),
    ]
    if wide:
        row += [item.quantization or "", item.tool_parser or "", item.reasoning_parser or "", item.disk]
        row.append(",".join(item.aliases))
    return row


def _source(item: Preset) -> str:
    if item.weights_in_image:
        return "your image" if item.private else "image"
    return "hub, with a token" if item.gated else "hub"


def _preset_facts(item: Preset) -> list[tuple[str, str]]:
    weights = render_gib(item.weights_bytes) if item.weights_bytes else "unknown"
    cache = f"{item.kv_bytes_per_token} bytes per token ({item.attention})" if item.kv_bytes_per_token else ""
    tuning = item.tuning
    return [
        ("Name", item.name),
        ("Aliases", ", ".join(item.aliases)),
        ("Architecture", f"{item.architecture}, {item.layers} layers, {item.attention_heads} heads"),
        ("Weights", f"{weights} ({item.quantization or '16 bits'}), from {_source(item)}"),
        ("Context", f"{item.context_limit} tokens"),
        ("Cache", f"at most {cache}: not every layer caches every token" if item.kv_upper_bound else cache),
        ("Parsers", _join(tools=item.tool_parser, reasoning=item.reasoning_parser)),
        (
            "Tuning",
            f"{tuning.disk} of disk, {render_gib(tuning.total_gpu_memory)} of GPU memory" if tuning else "no",
        ),
        ("Licence", item.license or "not recorded"),
        ("Hub", f"{item.hf_id}@{item.hf_revision}" if item.hf_revision else item.hf_id or ""),
        ("Image", f"{item.image}:{item.image_tag}"),
        ("Disk", item.disk),
        ("Ready in", f"{item.readiness_timeout / 60:.0f} minutes at most"),
        ("Corrected", "; ".join(item.corrections)),
    ]


def preset_obj(item: Preset) -> Obj:
    """A preset as JSON."""
    obj = {_camel(key): value for key, value in asdict_frozen(item).items()}
    if item.tuning is not None:
        obj["tuning"] = {_camel(key): value for key, value in asdict(item.tuning).items()}
    return obj


def _from_folder(name: str, folder: Path) -> Preset:
    from api.catalog.derive import first_known, preset_from, weights_of
    from api.catalog.rules import rules

    try:
        files = {item.name: item.stat().st_size for item in folder.iterdir() if item.is_file()}
        config_name = next((name for name in ("config.json", "params.json") if name in files), None)
        config = json.loads((folder / config_name).read_text(encoding="utf-8")) if config_name else None
    except (OSError, ValueError) as error:
        raise CliError(f"--from {folder} cannot be read: {error}", exit_code=2) from error
    weights = weights_of(files)
    if not isinstance(config, Mapping) or weights is None:
        what = "config.json" if not isinstance(config, Mapping) else "*.safetensors or *.bin"
        step = "give the folder of a model in Hugging Face's layout (huggingface-cli download)"
        raise CliError(f"--from {folder} holds no {what}", step, exit_code=2)
    try:
        preset = preset_from(name, config, weights, rules())
    except ValueError as error:
        raise CliError(f"--from {folder}: {error}", exit_code=2) from error
    if preset.architecture and first_known([preset.architecture], catalog.architectures()) is None:
        note(f"warning: the engine does not know the architecture {preset.architecture}")
    return preset


def _known_preset(name: str) -> Preset:
    try:
        return catalog.preset(name)
    except UnknownPreset as error:
        step = error.next_step
        if "/" in name:
            step += ", or download the model and give its folder with --from"
        raise CliError(error.message, step, exit_code=2) from error


# ------------------------------------------------------------------------------ instance types


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
    model = ModelFacts.of(_known_preset(wanted.fits)) if wanted.fits else None
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
        head = _SKU_HEAD + (["NODES", "LAYOUT", "TOKENS"] if model is not None else [])
        _table(head, [_sku_row(item, sizing, book, wanted.region, today) for item, sizing in rows])
    else:
        objs = [sku_obj(item, book.find(item.instance_type, wanted.region), sizing) for item, sizing in rows]
        _data(objs, [item.instance_type for item, _ in rows], output)


def print_sku(instance_type: str, prices: Path | None, output: str) -> None:
    """Print one instance type.

    Raises:
        CliError: the catalogue does not know it (exit code 2).
    """
    item = known_sku(instance_type, "")
    price = price_book(prices).find(item.instance_type)
    if output == "table":
        _facts(_sku_facts(item, price, datetime.now(UTC).date()))
    else:
        _data(sku_obj(item, price, None), [item.instance_type], output)


def known_sku(instance_type: str, option: str) -> Sku:
    """The instance type of this name.

    Raises:
        CliError: the catalogue does not know it (exit code 2).
    """
    found = catalog.sku(instance_type)
    if found is None:
        near = catalog.suggest_skus(instance_type)
        step = f"did you mean {' or '.join(near)}?" if near else "kaito skus list has them all"
        where = f"{option} {instance_type}: " if option else ""
        raise CliError(f"{where}the catalogue has no instance type {instance_type}", step, exit_code=2)
    return found


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
    obj = {_camel(key): value for key, value in asdict_frozen(item).items()}
    obj["price"] = {_camel(key): value for key, value in asdict_frozen(price).items()} if price else None
    if sizing is not None:
        from kaito.plan.verdict import sizing_obj

        obj["sizing"] = sizing_obj(sizing)
    return obj


# ------------------------------------------------------------------------------ printing


def asdict_frozen(item: object) -> Obj:
    """The fields of a frozen value, with plain lists and maps in place of tuples and proxies."""
    found: Obj = {}
    for name in item.__dataclass_fields__:  # type: ignore[attr-defined]
        value = getattr(item, name)
        if isinstance(value, Mapping):
            value = dict(value)
        found[name] = list(value) if isinstance(value, tuple) else value
    return found


def _table(head: list[str], rows: list[list[str]]) -> None:
    if rows:
        out(table([head, *rows]))
    else:
        note("none matches")


def _facts(facts: Iterable[tuple[str, str]]) -> None:
    shown = [(label, text) for label, text in facts if text]
    width = max(len(label) for label, _ in shown)
    for label, text in shown:
        out(f"{label.ljust(width)}   {text}")


def _data(obj: object, names: list[str], output: str) -> None:
    if output == "name":
        out("\n".join(names))
    elif output == "json":
        out(json.dumps(obj, indent=2, ensure_ascii=False))
    else:
        import yaml

        out(yaml.safe_dump(obj, allow_unicode=True, sort_keys=False).rstrip())


def _join(**parts: str | None) -> str:
    return ", ".join(f"{name} {value}" for name, value in parts.items() if value)


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)
