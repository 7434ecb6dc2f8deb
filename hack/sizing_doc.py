"""Writes docs/sizing.md: how nodes are counted, and where that leaves upstream's estimator.

In: the packaged catalogues and ``api.sizing``. Out: the page as text. Run through ``hack/generate.py``, which also
checks that the page is fresh: a change of an assumption shows up as a change of the table.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from api import catalog
from api.catalog import Preset, Sku
from api.quantity import GIB
from api.sizing import Assumptions, GpuFacts, ModelFacts, Sizing, size
from api.sizing.memory import Layout, budget, splits
from api.sizing.upstream import CONTEXT, Estimate, estimate

SKUS: Final = (
    "Standard_NV36ads_A10_v5",
    "Standard_NC24ads_A100_v4",
    "Standard_NC96ads_A100_v4",
    "Standard_NC40ads_H100_v5",
    "Standard_ND96isr_H100_v5",
    "Standard_ND96isr_H200_v5",
)

# Upstream's pull request 2156: model, preset or (GiB of weights, cache per token, limit, layers, heads, KV heads),
# GPUs per node and their GiB, nodes, layout, part of the memory that the engine was given, tokens that it had.
_H100 = GpuFacts("H100", 2, 94 * GIB, "NVIDIA H100", 9.0)
_A10 = GpuFacts("A10", 1, 24 * GIB, "NVIDIA A10", 8.6)
_QWEN3_8B = ModelFacts("qwen3-8b", int(15.26 * GIB), 147_456, 40_960, 36, 32, 8)
_QWEN3_14B = ModelFacts("qwen3-14b", int(27.51 * GIB), 163_840, 40_960, 40, 40, 8)
MEASURED: Final = (
    ("mistralai/mistral-small-4-119b-2603", _H100, Layout(1, 2), None, 810_208),
    (_QWEN3_8B, _A10, Layout(1), None, 20_272),
    (_QWEN3_14B, _A10, Layout(2, 1, 2), None, 55_952),
    ("google/gemma-4-31b-it", _H100, Layout(1, 2), None, 764_825),
    ("qwen/qwen3.5-397b-a17b-gptq-int4", _H100, Layout(2, 2, 2), None, 2_444_645),
    ("minimaxai/minimax-m2.7", _H100, Layout(2, 2, 2), 0.7, 117_264),
    ("minimaxai/minimax-m2.7", _H100, Layout(2, 2, 2), 0.75, 195_968),
)

_HEAD: Final = """# How many GPUs and nodes a model needs

This page is written by `python hack/generate.py` from the code that sizes (`api/sizing`); do not edit it.

`kaito plan` and `kaito presets show --on` show every figure below for one model. One GPU's memory is spent so:

```
usable   = what the driver reports x {utilization} ({utilization_a10} on an A10)
weights  = size on disk x {weight_factor} x largest stage / (layers x tensor-parallel group)
overhead = {overhead:.1f} GiB + {overhead_share} x weights
cache    = usable - weights - overhead        must hold {context} tokens, or what --context asks for
```

A stage of a pipeline has whole layers. The cache of a token is sharded over the tensor-parallel group, at most
over the model's key-value heads, and not at all with MLA. A group must divide the attention heads, and divide the
key-value heads or be a multiple of them. The fewest nodes win, then the widest group; whole copies of the model
(data parallel) are taken where a GPU could hold two of it and its cache any request.

## Against running engines

The cache that we promise beside the cache that vLLM had (kaito-project/kaito pull request 2156). That it is never
above is what keeps a server from failing at its start. For models that do not cache every token in every layer
(gemma-4, qwen3.5) our figure per token is an upper bound, so the promise is far below.

"""

_DIFFERENT: Final = """
## Where the number of nodes differs from upstream's

Upstream's estimator (v0.12) on the six instance types of its own table: {total} pairs of model and instance type,
{same} with the same number of nodes, {more} with more, {fewer} with fewer, {never} where no number of nodes helps.
`api.sizing.upstream` reproduces upstream's figures for all of them (test/api/test_sizing_upstream.py).

"""

_LAYOUTS: Final = """
## Where upstream's layout cannot start

Upstream spreads each layer over all GPUs of a node, unless the node holds two copies per GPU. The engine refuses
that where the heads cannot be dealt out. On all current Azure types with several GPUs:

"""

_SLIPS: Final = (
    ("what upstream has", "what we have", "why"),
    ("---", "---", "---"),
    (
        "its estimator counts on 0.84 of an A10, and its engine starts with 0.82",
        "0.82 in both",
        "a server gets what was counted on",
    ),
    (
        "`phi4-mini` in its table of tool parsers",
        "`phi-4-mini`",
        "no model is called so, and none gets the parser",
    ),
    (
        "tool parser, template and tokenizer of DeepSeek V3 for the distilled Llama and Qwen models",
        "none of them",
        "their vocabularies lack these tokens",
    ),
    (
        "Llama and Gemma 3 without a token",
        "`gated`, and plan asks for `modelAccessSecret`",
        "the hub hands them to those who accepted the licence",
    ),
    ("disk of falcon-40b: `400`", "`400Gi`", "without a unit it is 400 bytes"),
    ("Standard_ND96amsr_A100_v4 with 80 GiB (v0.3)", "640 GiB", "8 GPUs of 80"),
    (
        "Standard_ND96asr_A100_v4",
        "Standard_ND96asr_v4",
        "Azure has no type of the first name: never chosen, and plan says so",
    ),
    (
        "types that cannot run the image (AMD, Trainium, Inferentia, K80 to P40) like any other",
        "never chosen, and plan says why",
        "admission still takes them",
    ),
)


def document() -> str:
    """The whole page."""
    return "".join(_parts())


def _parts() -> Iterator[str]:
    rules = Assumptions()
    yield _HEAD.format(
        utilization=rules.utilization,
        utilization_a10=rules.utilization_a10,
        weight_factor=rules.weight_factor,
        overhead=rules.overhead / GIB,
        overhead_share=rules.overhead_share,
        context=rules.context,
    )
    yield from _table(("model", "GPUs", "layout", "part of memory", "tokens measured", "tokens promised"))
    yield from (_measured(*row) for row in MEASURED)
    rows = list(_rows())
    never = sum(not ours.fits for *_, ours in rows)
    more = sum(ours.fits and ours.nodes > theirs.nodes for *_, theirs, ours in rows)
    fewer = sum(ours.fits and ours.nodes < theirs.nodes for *_, theirs, ours in rows)
    same = len(rows) - more - fewer - never
    yield _DIFFERENT.format(total=len(rows), same=same, more=more, fewer=fewer, never=never)
    yield from _table(("model", "instance type", "upstream", "ours", "why"))
    for preset, sku, theirs, ours in rows:
        if not ours.fits or ours.nodes != theirs.nodes:
            what = f"{ours.nodes} ({ours.layout})" if ours.fits else "none"
            why = _why(preset, sku, theirs) if ours.fits else ours.why
            yield f"| {preset.name} | {sku.instance_type} | {theirs.nodes} | {what} | {why} |\n"
    yield _LAYOUTS
    yield from _table(("model", "instance type", "upstream", "ours"))
    yield from _impossible()
    yield "\n## What else was corrected\n\n"
    yield from (f"| {' | '.join(row)} |\n" for row in _SLIPS)


def _table(head: tuple[str, ...]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |\n"
    yield f"|{'---|' * len(head)}\n"


def _impossible() -> Iterator[str]:
    """The single nodes on which upstream's tensor-parallel group does not divide the heads."""
    for preset in catalog.presets():
        for sku in catalog.skus():
            if preset.era != "v0.12" or sku.cloud != "azure" or sku.gpus < 2 or sku.old or not sku.nvidia:
                continue
            model = ModelFacts.of(preset)
            copies = 2 * model.weights * sku.gpus < sku.total_gpu_memory
            if not copies and not sku.real_name and not splits(model, sku.gpus):
                ours = size(model, GpuFacts.of(sku))
                where = f"{ours.nodes} x {ours.layout}" if ours.nodes > 1 else str(ours.layout)
                yield f"| {preset.name} | {sku.instance_type} | TP={sku.gpus} | {where} |\n"


def _rows() -> Iterator[tuple[Preset, Sku, Estimate, Sizing]]:
    for preset in catalog.presets():
        if preset.era != "v0.12":
            continue
        model = ModelFacts.of(preset)
        for name in SKUS:
            sku = catalog.sku(name)
            if sku is None:
                raise LookupError(name)
            theirs = estimate(model.weights, model.kv_bytes_per_token, sku.gpus, sku.total_gpu_memory)
            yield preset, sku, theirs, size(model, GpuFacts.of(sku))


def _why(preset: Preset, sku: Sku, theirs: Estimate) -> str:
    """Which of our assumptions, taken back alone, gives upstream's number; all of them where none does alone."""
    model, gpu, rules = ModelFacts.of(preset), GpuFacts.of(sku), Assumptions()
    finely = replace(model, layers=model.layers * 10_000)
    variants = {
        f"{rules.context} tokens must fit, not {CONTEXT}": (model, gpu, replace(rules, context=CONTEXT)),
        "an A10's engine starts with 0.82 of its memory": (model, gpu, replace(rules, utilization_a10=0.84)),
        "what the driver reports is less than the name says": (
            model,
            replace(gpu, memory=sku.per_gpu_memory),
            rules,
        ),
        "layers go to a stage whole": (finely, gpu, rules),
    }
    ours = size(model, gpu).nodes
    nodes = {text: size(*variant[:2], assumed=variant[2]).nodes for text, variant in variants.items()}
    alone = [text for text, count in nodes.items() if count == theirs.nodes]
    if alone:
        return "; or ".join(alone)
    some = [text for text, count in nodes.items() if count < ours]
    return "; ".join(some) if some else "several at once: " + "; ".join(_together(preset, sku))


def _together(preset: Preset, sku: Sku) -> Iterator[str]:
    """What differs at all for this pair."""
    yield f"{Assumptions().context} tokens, not {CONTEXT}"
    if sku.gpu_model == "NVIDIA A10":
        yield "0.82 of an A10"
    if sku.reported_gpu_memory:
        yield "what the driver reports"
    if preset.distributed:
        yield "whole layers"


def _measured(
    model: str | ModelFacts, gpu: GpuFacts, layout: Layout, utilization: float | None, tokens: int
) -> str:
    facts = ModelFacts.of(catalog.preset(model)) if isinstance(model, str) else model
    rules = Assumptions() if utilization is None else Assumptions(utilization=utilization)
    promised = budget(facts, gpu, layout, rules).tokens
    part = utilization or (rules.utilization_a10 if gpu.model == "NVIDIA A10" else rules.utilization)
    where = f"{layout.nodes} x {gpu.count} {gpu.name} ({gpu.memory // GIB} GiB)"
    return f"| {facts.name} | {where} | {layout} | {part} | {tokens} | {promised} |\n"
