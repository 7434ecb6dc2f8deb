"""What plan has to say, sentence by sentence: each finding with its code, its severity and the next step.

In: what was computed. Out: findings. Pure. The words of the operator and of the admission rules are passed on as
they are; only what neither of them judges has sentences here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

from api.catalog import Preset, Sku
from api.catalog import suggest_skus as suggest
from api.sizing import (
    SAMPLE_TOKENS,
    GpuFacts,
    ModelFacts,
    Option,
    Price,
    Sizing,
    TuningFit,
    TuningOption,
    Wish,
    engine_limits,
)
from api.v1alpha1 import Workspace
from api.validation import Violation
from api.validation.warn import placeholder_causes
from kaito.plan.rehearsal import Rehearsal
from kaito.plan.verdict import Finding, Severity

if TYPE_CHECKING:
    from kaito.plan.judge import Quota

Obj = dict[str, Any]

_CAPACITY = "Insufficient"  # admission's word for what a larger instance type would cure


def violations(found: Iterable[Violation]) -> Iterator[Finding]:
    """The admission rules' findings: what does not fit is an error, anything else an invalid manifest."""
    for item in found:
        where = f"{item.path}: " if item.path else ""
        capacity = item.message.startswith(_CAPACITY)
        severity, code = (Severity.ERROR, "capacity") if capacity else (Severity.INVALID, "manifest")
        yield Finding(severity, code, f"{where}{item.message}", item.hint)


def namesakes(obj: Obj, beside: Iterable[Obj]) -> Iterator[Finding]:
    """That the same files hold another Workspace of this name."""
    others = [other for other in beside if other is not obj and _key(other) == _key(obj)]
    if not others:
        return
    text = f"{len(others) + 1} Workspaces of these files have this name: each replaces the one before"
    if any(("tuning" in other) != ("tuning" in obj) for other in others):
        text += ", and inference cannot become tuning, nor tuning inference"
        yield Finding(Severity.ERROR, "namesake", text, "give each a name of its own")
        return
    yield Finding(Severity.WARNING, "namesake", text, "give each a name of its own")


def _key(obj: Obj) -> tuple[str, str, str]:
    meta = obj["metadata"]
    return str(obj.get("kind")), str(meta.get("namespace") or "default"), str(meta["name"])


def refused(found: Iterable[Finding]) -> bool:
    """Whether the manifest is not admitted for a reason other than capacity."""
    return any(item.severity is Severity.INVALID for item in found)


def chosen(taken: str, written: str, by: str) -> Iterator[Finding]:
    """That the instance type is ours, and by what it was chosen."""
    if taken and by in ("price", "memory"):
        how = "the lowest price" if by == "price" else "the least GPU memory that fits: no price is known for any"
        instead_of = f" instead of {written}" if written and written != taken else ""
        yield Finding(Severity.NOTE, "chosen", f"{taken} was chosen{instead_of} for {how}")


def instance_type(taken: str, sku: Sku | None, instead: str) -> Iterator[Finding]:
    """What is to be known about the type as such."""
    if not taken:
        text = "no instance type is named, and none that the catalogue knows would do"
        yield Finding(
            Severity.ERROR, "instance-type", text, "write resource.instanceType, or ask for less context"
        )
        return
    if sku is None:
        near = suggest(taken)
        hint = f"did you mean {near[0]}?" if near else instead
        text = f"{taken} is not in the catalogue, so whether the model fits cannot be told"
        yield Finding(Severity.ERROR, "unknown-instance-type", text, hint)
        return
    if sku.partial:
        yield Finding(Severity.WARNING, "partial-gpu", f"{taken} has a part of a GPU, shared by the hypervisor")
    if sku.arch != "amd64":
        text = f"{taken} has {sku.arch} processors and the operator asks for amd64 nodes"
        yield Finding(Severity.ERROR, "architecture", text, instead)


def obtainable(sku: Sku, instead: str, today: date) -> Iterator[Finding]:
    """Whether the cloud makes such nodes."""
    name = sku.instance_type
    if sku.real_name:
        text = f"{sku.cloud} has no {name}; it is called {sku.real_name}"
        yield Finding(Severity.ERROR, "instance-type", text, f"write resource.instanceType: {sku.real_name}")
    if sku.is_retired(today):
        step = f"{instead}; nodes that exist already can be used (--existing-nodes)".removeprefix("; ")
        yield Finding(Severity.ERROR, "retired", f"{sku.cloud} makes no new {name} since {sku.retired}", step)
    elif sku.retired:
        yield Finding(
            Severity.WARNING, "retired", f"{sku.cloud} makes no new {name} from {sku.retired} on", instead
        )


def engine(model: ModelFacts | None, sku: Sku | None, instead: str) -> Iterator[Finding]:
    """What the engine cannot do on these GPUs."""
    if sku is None:
        return
    for limit in engine_limits(model, GpuFacts.of(sku)):
        severity = Severity.ERROR if limit.blocks else Severity.WARNING
        yield Finding(severity, "engine", limit.text, instead if limit.blocks else "")


def memory(sizing: Sizing, whole: Sizing, options: Sequence[Option]) -> Iterator[Finding]:
    """Whether the model fits, and with how long a context. ``whole`` is with all GPUs of enough nodes."""
    facts, name = sizing.model, sizing.gpu.name
    if not sizing.fits:
        step = " or ".join(dict.fromkeys(_write(item, name) for item in _first_of_each(options, name)))
        yield Finding(Severity.ERROR, "memory", f"it does not fit: {sizing.why}", step)
    elif sizing.max_model_len < facts.context_limit:
        upper = " or more, since not every layer caches every token" if facts.kv_upper_bound else ""
        text = (
            f"requests have {sizing.max_model_len} tokens of the model's {facts.context_limit}{upper}: "
            f"that is what the cache on {name} holds"
        )
        yield Finding(Severity.NOTE, "context", text, "--context N asks what it takes for N tokens")
    if sizing.gpu.count < whole.gpu.count:
        each = f"{sizing.gpu.count} of the {whole.gpu.count} GPUs"
        yield Finding(
            Severity.WARNING, "idle-gpus", f"the operator's pods ask for {each} of a node; the rest is idle"
        )
    elif sizing.fits and whole.fits and facts.distributed and sizing.nodes > whole.nodes:
        text = f"{sizing.nodes} nodes are asked for, and {whole.nodes} would hold the model"
        yield Finding(Severity.NOTE, "nodes", text)


def tuning(fit: TuningFit | None, instead: str) -> Iterator[Finding]:
    """Whether the model can be trained there."""
    if fit is not None and not fit.comfortable:
        yield Finding(Severity.WARNING if fit.possible else Severity.ERROR, "memory", fit.why, instead)
    if fit is not None and fit.possible:
        text = "the node is kept, and paid for, when training is over, until the Workspace is deleted"
        yield Finding(Severity.NOTE, "kept", text, "kubectl delete workspace gives it back")
    if fit is None or not fit.possible or fit.batch is None:
        return
    sample = f"samples of {SAMPLE_TOKENS} tokens"
    if fit.batch == 0:
        text = f"by estimate not even one of the {sample} fits"
        step = "write a smaller TrainingArguments.max_length in the training configuration"
        yield Finding(Severity.WARNING, "batch", text, step)
        return
    text = f"by estimate {fit.batch} {sample} fit at once: per_device_train_batch_size up to {fit.batch}"
    yield Finding(Severity.NOTE, "batch", text)


def model(preset: Preset | None, workspace: Workspace) -> Iterator[Finding]:
    """What is to be known about the weights."""
    if preset is None or workspace.inference is None or workspace.inference.preset is None:
        return
    options = workspace.inference.preset.preset_options
    if preset.gated and not (options and options.model_access_secret):
        text = f"{preset.hf_id} is gated: the hub hands it out to those who accepted its licence"
        step = "accept it, make a Secret with the key HF_TOKEN, and name it in presetOptions.modelAccessSecret"
        yield Finding(Severity.ERROR, "gated", text, step)


def placeholders(workspace: Workspace) -> Iterator[Finding]:
    """Words from an example that nobody has filled in."""
    for cause in placeholder_causes(workspace):
        step = cause.next_step or "replace it with a value of yours"
        yield Finding(Severity.ERROR, "placeholder", cause.message, step)


def operator(rehearsal: Rehearsal, taken: str) -> Iterator[Finding]:
    """The operator's own objection, in its own words."""
    cause = rehearsal.objection
    if cause is None:
        return
    needs_type = cause.reason == "InstanceTypeNeeded"
    step = f"write resource.instanceType: {taken}" if needs_type and taken else ""
    yield Finding(Severity.ERROR, "operator", f"the operator answers {cause.reason}: {cause.message}", step)


def money(price: Price | None, taken: str, wish: Wish) -> Iterator[Finding]:
    """That a price is not known."""
    if not taken or (price is not None and price.per_hour(spot=wish.spot) is not None):
        return
    kind = "spot price" if wish.spot else "price"
    where = f" in {wish.region}" if wish.region else ""
    text = f"no {kind} is known for {taken}{where}"
    yield Finding(
        Severity.NOTE, "price", text, "give your own with --prices FILE (`kaito plan --help` has the format)"
    )


def quota(source: Quota | None, taken: str, nodes: int) -> Iterator[Finding]:
    """Whether the quota allows the nodes, where somebody can ask for it."""
    if source is None or not taken:
        return
    left = source.left(taken)
    if left is not None and left < nodes:
        text = f"the quota leaves {left} nodes of {taken}, {nodes} are needed"
        yield Finding(
            Severity.ERROR, "quota", text, "ask the cloud for more quota, or choose another type or region"
        )


def _first_of_each(options: Sequence[Option], taken: str) -> Iterator[Option]:
    """The best other type, then more of the same one."""
    other = next((item for item in options if item.sku.instance_type != taken), None)
    same = next((item for item in options if item.sku.instance_type == taken), None)
    yield from (item for item in (other, same) if item is not None)


def suggestion(options: Sequence[Option] | Sequence[TuningOption], taken: str) -> str:
    """What to write to have the best of these that is not the type at hand; empty where there is none."""
    best = next((item for item in options if item.sku.instance_type != taken), None)
    return _write(best, taken) if best else ""


def _write(item: Option | TuningOption, taken: str) -> str:
    """What to write in the manifest to have this option."""
    parts = []
    if item.sku.instance_type != taken:
        parts.append(f"resource.instanceType: {item.sku.instance_type}")
    if isinstance(item, Option) and item.sizing.nodes > 1:
        parts.append(f"resource.count: {item.sizing.nodes}")
    money = ""
    if item.per_hour is not None and item.price is not None:
        money = f" ({item.per_hour:.2f} {item.price.currency} per hour)"
    return f"write {', '.join(parts)}{money}"
