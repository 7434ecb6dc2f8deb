"""What ``kaito presets`` prints: presets, filtered, and any model by its own files, joined by sizing.

In: a filter or a name as typed. Out: a table, JSON, YAML or names on standard output. Sizes in JSON are bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from api import catalog
from api.catalog import Preset
from api.quantity import render_gib
from api.sizing import GpuFacts, ModelFacts, engine_limits, size
from kaito.console import note
from kaito.errors import CliError
from kaito.known import known_preset, known_sku
from kaito.rows import Obj, plain, print_data, print_facts, print_table

_HEAD = ["NAME", "WEIGHTS", "CONTEXT", "CACHE/TOKEN", "ATTENTION", "TUNING", "LICENSE", "WEIGHTS FROM"]
_WIDE = ["QUANTIZATION", "TOOLS", "REASONING", "DISK", "ALIASES"]


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
        head = _HEAD + (_WIDE if output == "wide" else [])
        print_table(head, [_preset_row(item, wide=output == "wide") for item in found])
    else:
        print_data([preset_obj(item) for item in found], [item.name for item in found], output)


def print_preset(name: str, folder: Path | None, on: str, context: int | None, output: str) -> None:
    """Print one preset, from the catalogue or from a folder with a model's files.

    Raises:
        CliError: there is none, the folder holds no model, or the instance type is unknown (exit code 2).
    """
    preset = _from_folder(name, folder) if folder is not None else known_preset(name)
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
        print_facts(facts)
        return
    obj = preset_obj(preset)
    if sizing is not None:
        from kaito.plan.verdict import sizing_obj

        obj["sizing"] = sizing_obj(sizing)
    print_data(obj, [preset.name], output)


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
    return plain(item) | {"tuning": plain(item.tuning) if item.tuning is not None else None}


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
    classes = list(config.get("architectures") or [])
    if known := first_known(classes, catalog.architectures()):
        config = {**config, "architectures": [known, *classes]}
    try:
        preset = preset_from(name, config, weights, rules())
    except ValueError as error:
        raise CliError(f"--from {folder}: {error}", exit_code=2) from error
    if classes and known is None:
        note(f"warning: the engine does not know the architecture {preset.architecture}")
    return preset


def _join(**parts: str | None) -> str:
    return ", ".join(f"{name} {value}" for name, value in parts.items() if value)
