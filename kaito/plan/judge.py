"""One Workspace, judged.

In: the Workspace as written, the other documents beside it, and what is around (catalogue, prices, day, wishes,
quota). Out: a ``Verdict``. Pure. The order: is it admitted; what would the operator do; would the model fit there
and run there; what does it cost; what else would do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Protocol

from api import catalog, keys, validation
from api.catalog import Preset, Sku
from api.errors import InvalidSpec
from api.reasons import Reason
from api.sizing import (
    Choice,
    GpuFacts,
    Layout,
    ModelFacts,
    Option,
    Price,
    PriceBook,
    Sizing,
    TuningFit,
    TuningOption,
    Wish,
    choose,
    choose_for_tuning,
    cost,
    size,
    tuning_fit,
)
from api.v1alpha1 import Workspace
from controllers.settings import DEFAULT_REGISTRY
from kaito.plan import findings as say
from kaito.plan.config import wanted_context
from kaito.plan.rehearsal import Rehearsal, rehearse
from kaito.plan.verdict import Finding, Verdict

Obj = dict[str, Any]
DEFAULT_CLOUD = "azure"
_SHOWN = 3  # alternatives that are worth a line


class Quota(Protocol):
    """Answers how many more nodes of a type may be had; whoever has the cloud's credentials supplies one."""

    def left(self, instance_type: str) -> int | None:
        """Nodes that the quota still allows; None where that cannot be found out."""
        ...


@dataclass(frozen=True, slots=True)
class Around:
    """What the judgement rests on beside the manifest.

    Attributes:
        wish: what the user wants of the nodes; an empty cloud means that of the written type.
        cheapest: the written type is to be replaced.
        existing_nodes: whether the cloud still makes such nodes does not matter.
    """

    now: datetime
    prices: PriceBook
    wish: Wish = field(default_factory=Wish)
    cheapest: bool = False
    existing_nodes: bool = False
    registry: str = DEFAULT_REGISTRY
    quota: Quota | None = None


def judge(obj: Obj, beside: Sequence[Obj], around: Around) -> Verdict:
    """The verdict on one Workspace. ``beside`` are the other objects of the same files."""
    try:
        workspace: Workspace | None = Workspace.parse(obj)
    except InvalidSpec:
        workspace = None  # the validation says what is wrong, with the path
    preset = catalog.find_preset(workspace.preset.name) if workspace and workspace.preset else None
    maps = {str(other["metadata"]["name"]): other for other in beside if other.get("kind") == "ConfigMap"}
    asked = validation.judge(obj, world=validation.World(config_maps=maps))
    found = [*say.violations(asked.violations), *say.namesakes(obj, beside)]
    if workspace is None or say.refused(found):
        return _verdict(obj, workspace, preset, found)
    context = around.wish.context or wanted_context(workspace, beside)
    named = catalog.sku(workspace.resource.instance_type or "")
    cloud = around.wish.cloud or (named.cloud if named else DEFAULT_CLOUD)
    spot = around.wish.spot or workspace.metadata.annotations.get(keys.CAPACITY_TYPE) == keys.SPOT
    wish = replace(
        around.wish, cloud=cloud, context=context, nodes=workspace.resource.count, copies=False, spot=spot
    )
    return _Case(obj, workspace, preset, around, wish).verdict(found)


@dataclass(frozen=True, slots=True)
class _Case:
    """A Workspace that is admitted."""

    obj: Obj
    workspace: Workspace
    preset: Preset | None
    around: Around
    wish: Wish

    def verdict(self, found: list[Finding]) -> Verdict:
        model = ModelFacts.of(self.preset) if self.preset and self.workspace.inference else None
        written = self.workspace.resource.instance_type or ""
        choice = self._choice(model)
        runs = tuple(item for item in choice.options if self._runs(item)) if choice else ()
        tunable = self._tuning_options()
        candidates = runs or tunable or (choice.options if choice else ())
        taken, by = written, "manifest" if written else ""
        if not written:
            taken = self._operators_choice()  # what it will do counts, not what we would
            by = "price" if taken else ""
        if candidates and (self.around.cheapest or not taken):
            taken = candidates[0].sku.instance_type
            by = "memory" if candidates[0].per_hour is None else "price"
        instead = say.suggestion(runs or tunable, taken)
        sku = catalog.sku(taken)
        rehearsal = self._rehearsal(taken, self.workspace.resource.count)
        nodes = rehearsal.target.count if rehearsal.target else self.workspace.resource.count or 1
        sizing = self._sizing(model, sku, rehearsal, nodes)
        tuning = self._tuning(sku)
        price = self.around.prices.find(taken, self.wish.region)
        found += say.chosen(taken, written, by)
        found += say.instance_type(taken, sku, instead)
        if sku is not None and not self.around.existing_nodes:
            found += say.obtainable(sku, instead, self.around.now.date())
        found += say.engine(model, sku, instead)
        if sizing is not None and sku is not None and model is not None:
            whole = size(model, GpuFacts.of(sku), context=self.wish.context)
            more = self._more_nodes(whole, sku, price) if not sizing.fits else ()
            found += say.memory(sizing, whole, (*runs, *more))
        found += say.tuning(tuning, instead)
        found += say.model(self.preset, self.workspace)
        found += say.placeholders(self.workspace)
        as_written = rehearsal if taken == written else self._rehearsal(written, self.workspace.resource.count)
        found += say.operator(as_written, taken)
        found += say.money(price, taken, self.wish)
        found += say.quota(self.around.quota, taken, nodes)
        options = runs or (choice.options if choice else ())
        return _verdict(
            self.obj,
            self.workspace,
            self.preset,
            found,
            instance_type=taken,
            sku=sku,
            chosen_by=by,
            nodes=nodes,
            sizing=sizing,
            tuning=tuning,
            price=price,
            spot=self.wish.spot,
            steps=rehearsal.steps,
            alternatives=tuple(item for item in options if item.sku.instance_type != taken)[:_SHOWN],
            runs=bool(runs),
            passed=choice.passed if choice else (),
        )

    def _choice(self, model: ModelFacts | None) -> Choice | None:
        """What would do; a written count is left open where nothing does with it."""
        if model is None:
            return None
        today = self.around.now.date()
        chosen = choose(model, catalog.skus(), self.around.prices, self.wish, today)
        if chosen.options or self.wish.nodes is None:
            return chosen
        return choose(model, catalog.skus(), self.around.prices, replace(self.wish, nodes=None), today)

    def _runs(self, item: Option) -> bool:
        """Whether the operator makes of this option what its sizing says: a suggestion that fails is none."""
        count = self.workspace.resource.count
        if item.sizing.nodes > 1:
            count = item.sizing.nodes
        rehearsal = self._rehearsal(item.sku.instance_type, count)
        if rehearsal.target is None:  # what it objects to may be something that no instance type cures
            return rehearsal.objection is not None and rehearsal.objection.reason != Reason.MODEL_DOES_NOT_FIT
        sizing = self._sizing(item.sizing.model, item.sku, rehearsal, rehearsal.target.count)
        return sizing is not None and sizing.fits

    def _operators_choice(self) -> str:
        """The type that the operator takes where none is written; empty where it takes none."""
        target = self._rehearsal("", self.workspace.resource.count).target
        return (target.instance_type if target else None) or ""

    def _more_nodes(self, whole: Sizing, sku: Sku, price: Price | None) -> tuple[Option, ...]:
        """More nodes of the same type, where the operator runs that."""
        if not whole.fits:
            return ()
        item = Option(sku, whole, price, cost(whole.nodes, price, spot=self.wish.spot))
        return (item,) if self._runs(item) else ()

    def _rehearsal(self, instance_type: str, count: int | None) -> Rehearsal:
        resource = {**self.obj["resource"], "instanceType": instance_type, "count": count}
        resource = {key: value for key, value in resource.items() if value not in ("", None)}
        return rehearse(
            {**self.obj, "resource": resource},
            self.around.registry,
            self.around.now,
            context=self.wish.context,
            switches=replace(validation.DEFAULT, cloud=self.wish.cloud),
        )

    def _sizing(
        self, model: ModelFacts | None, sku: Sku | None, rehearsal: Rehearsal, nodes: int
    ) -> Sizing | None:
        """How the model runs as the operator lays it out: its pods may ask for fewer GPUs than a node has."""
        if model is None or sku is None:
            return None
        gpu = GpuFacts.of(sku)
        if rehearsal.target is None or not rehearsal.target.gpus:
            return size(model, gpu, context=self.wish.context, nodes=nodes)
        made = rehearsal.target.layout
        copies = 1 if made.distributed else made.nodes
        spread = Layout(made.nodes, made.tensor_parallel, made.pipeline_parallel, copies)
        return size(model, replace(gpu, count=made.gpus_per_node), context=self.wish.context, fixed=spread)

    def _tuning_options(self) -> tuple[TuningOption, ...]:
        spec = self.workspace.tuning
        if spec is None or self.preset is None:
            return ()
        around, today = self.around, self.around.now.date()
        return choose_for_tuning(self.preset, spec.method, catalog.skus(), around.prices, self.wish, today)

    def _tuning(self, sku: Sku | None) -> TuningFit | None:
        spec = self.workspace.tuning
        if spec is None or self.preset is None or sku is None:
            return None
        return tuning_fit(self.preset, spec.method, GpuFacts.of(sku))


def _verdict(
    obj: Obj,
    workspace: Workspace | None,
    preset: Preset | None,
    found: list[Finding],
    **rest: Any,
) -> Verdict:
    half = ""
    if workspace is not None:
        half = "tuning" if workspace.tuning else "inference" if workspace.preset else "template"
    blank: dict[str, Any] = {
        "instance_type": (workspace.resource.instance_type if workspace else None) or "",
        "sku": None,
        "chosen_by": "",
        "nodes": (workspace.resource.count if workspace else None) or 1,
        "sizing": None,
        "tuning": None,
        "price": None,
        "spot": False,
        "steps": (),
        "alternatives": (),
        "runs": True,
        "passed": (),
    }
    meta: Mapping[str, Any] = obj["metadata"]
    return Verdict(
        name=str(meta["name"]),
        namespace=str(meta.get("namespace") or "default"),
        half=half,
        preset=preset,
        findings=tuple(found),
        **(blank | rest),
    )
