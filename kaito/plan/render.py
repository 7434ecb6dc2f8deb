"""A verdict for a person: what, where, for how much, in which order, and what to change."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from api.catalog import Preset
from api.quantity import GIB, render_gib
from api.sizing import Sizing
from kaito.console import paint, table
from kaito.plan.verdict import Finding, Severity, Verdict

_MARKS = {
    Severity.INVALID: ("✘", "red"),
    Severity.ERROR: ("✘", "red"),
    Severity.WARNING: ("!", "yellow"),
    Severity.NOTE: ("·", "dim"),
}
_ORDER = list(_MARKS)


def render(verdict: Verdict, *, wide: bool = False) -> str:
    """One verdict as text; ``wide`` adds what was tried and passed over."""
    return "\n".join(_lines(verdict, wide=wide))


def summary(verdicts: Sequence[Verdict]) -> str:
    """One line about all of them: how many work, and what they cost together."""
    good = sum(verdict.fits for verdict in verdicts)
    known = [money for verdict in verdicts if verdict.fits and (money := verdict.per_hour()) is not None]
    currencies = {verdict.price.currency for verdict in verdicts if verdict.fits and verdict.price}
    text = f"{good} of {len(verdicts)} work as written"
    if known and len(currencies) == 1:
        text += f"; together {sum(known):.2f} {currencies.pop()} per hour"
        if len(known) < good:
            text += f", and {good - len(known)} without a known price"
    return text


def _lines(verdict: Verdict, *, wide: bool) -> Iterator[str]:
    style = "green" if verdict.fits else "red"
    what = ", ".join(part for part in (verdict.half, verdict.preset.name if verdict.preset else "") if part)
    title = f"{verdict.namespace}/{verdict.name}" + (f" ({what})" if what else "")
    yield f"{paint(title, 'bold')}: {paint(verdict.word, style)}"
    facts = [(label, text) for label, text in _facts(verdict) if text]
    if facts:
        yield ""
        width = max(len(label) for label, _ in facts)
        yield from (f"  {label.ljust(width)}   {text}" for label, text in facts)
    if verdict.steps:
        yield ""
        yield "  What the operator does, in this order"
        rows = [[str(number), *row] for number, row in enumerate(_steps(verdict), 1)]
        yield _indented(table(rows), 4)
    findings = sorted(verdict.findings, key=lambda item: _ORDER.index(item.severity))
    if findings:
        yield ""
        for item in findings:
            yield from _finding(item)
    if verdict.alternatives and not (verdict.fits and verdict.chosen_by == "manifest" and not wide):
        yield ""
        yield "  What else would hold it" + (
            "" if verdict.runs else " once the operator starts it on all of these GPUs"
        )
        yield _indented(table(list(_alternatives(verdict))), 4)
    if wide:
        yield from _tried(verdict)


def _facts(verdict: Verdict) -> Iterator[tuple[str, str]]:
    yield "Nodes", _nodes(verdict)
    yield "Cost", _cost(verdict)
    if verdict.preset:
        yield "Model", _model(verdict.preset)
    if verdict.sizing is not None:
        yield from sizing_facts(verdict.sizing)
    if verdict.tuning is not None:
        yield "Training", verdict.tuning.why
    if verdict.preset and verdict.steps:
        tuned = verdict.preset.tuning if verdict.tuning is not None else None
        yield "Disk", f"{tuned.disk if tuned else verdict.preset.disk} on each node"


def sizing_facts(sizing: Sizing) -> list[tuple[str, str]]:
    """A sizing as labelled lines."""
    return [("Layout", _layout(sizing)), ("Memory", _memory(sizing)), ("Context", _context(sizing))]


def _nodes(verdict: Verdict) -> str:
    if not verdict.instance_type:
        return ""
    text = f"{verdict.nodes} x {verdict.instance_type}"
    sku = verdict.sku
    if sku is None:
        return text
    parts = [f"{sku.gpus} x {sku.gpu_model} {render_gib(sku.per_gpu_memory)}"]
    if sku.compute_capability is not None:
        parts.append(f"compute capability {sku.compute_capability}")
    if sku.vcpus and sku.memory:
        parts.append(f"{sku.vcpus} vCPU, {render_gib(sku.memory)} memory")
    if sku.nvme:
        parts.append("NVMe")
    return f"{text} ({'; '.join(parts)})"


def _cost(verdict: Verdict) -> str:
    price = verdict.price
    on_demand, spot = verdict.per_hour(spot=False), verdict.per_hour(spot=True)
    if price is None or on_demand is None:
        return ""
    text = f"{on_demand:.2f} {price.currency} per hour"
    if spot is not None:
        text += f", {spot:.2f} on spot"
    kept = " until the Workspace is deleted" if verdict.tuning is not None else ""
    return f"{text}{kept} ({price.region}, as of {price.date or 'an unknown day'})"


def _model(preset: Preset) -> str:
    parts = []
    if preset.weights_bytes:
        where = "in the image" if preset.weights_in_image else f"from the hub ({preset.hf_id})"
        parts.append(f"{render_gib(preset.weights_bytes)} of weights {where}")
    if preset.quantization:
        parts.append(preset.quantization)
    if preset.attention and preset.kv_bytes_per_token:
        upper = "at most " if preset.kv_upper_bound else ""
        parts.append(f"{preset.attention}, {upper}{preset.kv_bytes_per_token / 1024:.0f} KiB of cache per token")
    if preset.license:
        parts.append(f"licence {preset.license}")
    return "; ".join(parts)


def _layout(sizing: Sizing) -> str:
    layout = sizing.layout
    parts = []
    if layout.tensor > 1:
        parts.append(f"each layer over {layout.tensor} GPUs")
    if layout.pipeline > 1:
        parts.append(f"the layers in {layout.pipeline} groups")
    if layout.data > 1:
        parts.append(f"{layout.data} copies")
    return f"{layout}" + (f" ({', '.join(parts)})" if parts else "")


def _memory(sizing: Sizing) -> str:
    budget = sizing.budget
    cache = f"{budget.cache / GIB:.1f} cache" if budget.cache > 0 else f"{-budget.cache / GIB:.1f} too much"
    sign = "+" if budget.cache > 0 else "-"
    return (
        f"of one GPU: {budget.weights / GIB:.1f} weights + {budget.overhead / GIB:.1f} overhead {sign} {cache} "
        f"= {budget.usable / GIB:.1f} of {budget.memory / GIB:.1f} GiB"
    )


def _context(sizing: Sizing) -> str:
    if not sizing.fits:
        return f"{sizing.context} tokens are wanted for one request"
    limit = sizing.model.context_limit
    whole = "the model's limit" if sizing.max_model_len == limit else f"of {limit}"
    return f"{sizing.max_model_len} tokens per request ({whole}); the cache holds {sizing.cache_tokens}"


def _steps(verdict: Verdict) -> list[list[str]]:
    """The steps; many Machines or labels of the same sort become one row."""
    rows: list[list[str]] = []
    counts: list[int] = []
    previous: tuple[str, str, str] | None = None
    for step in verdict.steps:
        key = (step.verb, step.kind, step.detail)
        if key == previous:
            counts[-1] += 1
            continue
        previous = key
        rows.append([step.verb, step.kind, step.name, step.detail])
        counts.append(1)
    for row, count in zip(rows, counts, strict=True):
        if count > 1:
            row[2] = f"{count} of them"
    return rows


def _finding(item: Finding) -> Iterator[str]:
    mark, style = _MARKS[item.severity]
    yield f"  {paint(mark, style)} {item.message} {paint(f'[{item.code}]', 'dim')}"
    if item.next:
        yield f"    next: {item.next}"


def _alternatives(verdict: Verdict) -> Iterator[list[str]]:
    for item in verdict.alternatives:
        money = "no price known"
        if item.per_hour is not None and item.price is not None:
            money = f"{item.per_hour:.2f} {item.price.currency} per hour"
        tokens = f"{item.sizing.max_model_len} tokens per request"
        yield [f"{item.sizing.nodes} x {item.sku.instance_type}", money, str(item.sizing.layout), tokens]


def _tried(verdict: Verdict) -> Iterator[str]:
    if verdict.sizing is not None and verdict.sizing.rejected:
        yield ""
        yield "  Layouts that were tried"
        rows = [
            [f"{item.layout.nodes} x {verdict.instance_type}", str(item.layout), item.rejected]
            for item in verdict.sizing.rejected
        ]
        yield _indented(table(rows), 4)
    if verdict.passed:
        yield ""
        yield "  Instance types that were passed over"
        yield _indented(table([[item.instance_type, item.reason] for item in verdict.passed]), 4)


def _indented(text: str, by: int) -> str:
    return "\n".join(" " * by + line for line in text.splitlines())
