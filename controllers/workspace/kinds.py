"""Which nodes a Workspace is to run on: the instance type, how many, and how the model lies on them.

In: an observation, the typed Workspace, its preset, the time. Out: a ``NodeKind``, or the cause why there is none.
Pure. A written instance type is taken. Without one the order is: what was made for this Workspace already (so that
a reconcile, a restart or a new price changes nothing), then nodes that match, then the cheapest type that fits. A
written count is exact; an absent one is what the model takes, and stays once something was made for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from api import catalog, keys
from api.catalog import Preset, Sku
from api.reasons import Cause, Reason
from api.sizing import Assumptions, GpuFacts, ModelFacts, Price, cost, packaged_prices, unusable
from api.v1alpha1 import Workspace
from api.validation.metadata import bypasses
from controllers.workspace.candidates import fits, is_ready, preference, provisioning, returns_by
from controllers.workspace.fitting import lay_out
from controllers.workspace.gpus import gpus_of, gpus_requested
from controllers.workspace.layout import Layout
from controllers.workspace.made import instance_type as type_of
from controllers.workspace.made import is_leaving, machine_name
from controllers.workspace.model import Observation
from controllers.workspace.sharing import key_of, owner_of
from controllers.workspace.tuning.fitting import cheapest_type, lay_out_tuning
from manager.types import Obj

_MOST: Final = Assumptions().most_nodes


@dataclass(frozen=True, slots=True)
class NodeKind:
    """The nodes to have.

    Attributes:
        instance_type: of nodes that are made; None: none is made. Nodes that exist must be of it, or of none.
        gpu_nodes: a node must show GPUs.
        only: names of the nodes that are alike; None: the type alone decides.
    """

    instance_type: str | None
    layout: Layout
    gpu_nodes: bool
    only: frozenset[str] | None = None


def node_kind(obs: Observation, workspace: Workspace, preset: Preset | None, now: datetime) -> NodeKind | Cause:
    """The nodes for this Workspace."""
    return _Choice(obs, workspace, preset, now).kind()


@dataclass(frozen=True, slots=True)
class _Choice:
    obs: Observation
    workspace: Workspace
    preset: Preset | None
    now: datetime

    def kind(self) -> NodeKind | Cause:
        policy = provisioning(self.obs, self.workspace)
        written = self.workspace.resource.instance_type
        if written:
            return self._typed(written)
        if policy != keys.PROVISION_NEVER and (made := _made_type(self.obs)):
            settled = self._typed(made)
            return settled if isinstance(settled, Cause) else self._ours(settled)
        groups = [] if policy == keys.PROVISION_ALWAYS else [*self._groups()]
        if found := self._sufficient(groups):
            return found
        if policy == keys.PROVISION_NEVER:
            return self._insufficient(groups)
        return self._more_of_the_same(groups) or self._cheapest()

    def _lay_out(self, gpu: GpuFacts | None, *, strict: bool = False) -> Layout | Cause:
        insist = self.obs.deployed or bypasses(self.workspace)
        if self.workspace.tuning is not None and self.preset is not None:
            return lay_out_tuning(self.preset, self.workspace.tuning.method, gpu, insist=insist)
        count, context = self._count(), self.obs.context
        return lay_out(self.preset, gpu, count, context=context, insist=insist, strict=strict)

    def _count(self) -> int | None:
        """The number of nodes, where it is not to be computed."""
        if self.workspace.resource.count is not None:
            return self.workspace.resource.count
        decided = self.workspace.status.target_node_count
        return decided if decided and (_living(self.obs) or self.obs.deployed) else None

    # ------------------------------------------------------------------ a type is known

    def _typed(self, name: str) -> NodeKind | Cause:
        known = catalog.sku(name)
        # No type that the catalogue lists: a preset needs GPUs, and so does the N family.
        gpu_nodes = known.gpus > 0 if known else self.preset is not None or "Standard_N" in name
        if known is not None:
            gpu = GpuFacts.of(known) if known.gpus else None
        else:
            gpu = next(filter(None, map(self._gpus, self._nodes(name))), None)
        layout = self._lay_out(gpu)
        if isinstance(layout, Cause):
            return layout
        # Nodes bear the cloud's spelling.
        return NodeKind(known.instance_type if known else name, layout, gpu_nodes)

    # ------------------------------------------------------------------ nodes that match

    def _nodes(self, instance_type: str | None) -> list[Obj]:
        """Nodes that can be used, or that will be in a moment, in order of preference."""
        asked = self.preset.gpu_count if self.preset else 0
        found = [
            node
            for node in self.obs.nodes
            if fits(node, self.obs, self.workspace, instance_type, asked)
            and (is_ready(node) or returns_by(node, self.obs, self.now))
        ]
        return sorted(found, key=lambda node: preference(node, self.workspace))

    def _gpus(self, node: Obj) -> GpuFacts | None:
        pod = (self.obs.workload or {}).get("spec", {}).get("template", {}).get("spec") or {}
        return gpus_of(node, gpus_requested(pod))

    def _groups(self) -> Iterator[tuple[GpuFacts | None, list[Obj]]]:
        """Nodes with the same GPUs: a model is not spread over different ones."""
        groups: dict[object, tuple[GpuFacts | None, list[Obj]]] = {}
        for node in self._nodes(None):
            gpu = self._gpus(node)
            alike = (gpu.model, gpu.count, gpu.memory) if gpu else None
            groups.setdefault(alike, (gpu, []))[1].append(node)
        yield from groups.values()

    def _sufficient(self, groups: list[tuple[GpuFacts | None, list[Obj]]]) -> NodeKind | None:
        for gpu, nodes in groups:
            layout = self._lay_out(gpu)
            if isinstance(layout, Layout) and layout.nodes <= len(nodes):
                return self._of(None, layout, nodes)
        return None

    def _more_of_the_same(self, groups: list[tuple[GpuFacts | None, list[Obj]]]) -> NodeKind | None:
        """What matches is too little, and more of it can be had."""
        for gpu, nodes in groups:
            name = _type_label(nodes[0])
            layout = self._lay_out(gpu)
            if name and catalog.sku(name) and isinstance(layout, Layout):
                return self._ours(NodeKind(name, layout, self.preset is not None))
        return None

    def _insufficient(self, groups: list[tuple[GpuFacts | None, list[Obj]]]) -> NodeKind | Cause:
        if not groups:
            gpus = self.preset.gpu_count if self.preset else 0
            return self._of(None, Layout(self._count() or 1, gpus, gpus or 1, reason="no node matches"), [])
        gpu, nodes = groups[0]
        layout = self._lay_out(gpu)
        return layout if isinstance(layout, Cause) else self._of(None, layout, nodes)

    def _of(self, instance_type: str | None, layout: Layout, nodes: list[Obj]) -> NodeKind:
        names = frozenset(node["metadata"]["name"] for node in nodes)
        return NodeKind(instance_type, layout, self.preset is not None, names)

    def _ours(self, kind: NodeKind) -> NodeKind:
        """A type that nobody wrote: a node that does not say its type was looked at, and is not what is wanted."""
        me = key_of(self.obs.namespace, self.obs.name)
        names = (
            node["metadata"]["name"]
            for node in self.obs.nodes
            if _type_label(node) == kind.instance_type or owner_of(node) == me
        )
        return replace(kind, only=frozenset(names))

    # ------------------------------------------------------------------ none

    def _cheapest(self) -> NodeKind | Cause:
        if self.preset is None:  # what a template needs, only its author knows
            return NodeKind(None, Layout(self._count() or 1, 0), gpu_nodes=False)
        if self.workspace.tuning is not None:
            today, method = self.now.date(), self.workspace.tuning.method
            found = cheapest_type(self.workspace, self.preset, method, self.obs.switches.cloud, today)
            settled = found if isinstance(found, Cause) else self._typed(found)
            return settled if isinstance(settled, Cause) else self._ours(settled)
        model = None if self.preset.weights_bytes is None else ModelFacts.of(self.preset)
        if model is None:
            answer = self._lay_out(None)
            assert isinstance(answer, Cause)  # noqa: S101 - without GPUs nothing is known of such a model
            return answer
        spot = self.workspace.metadata.annotations.get(keys.CAPACITY_TYPE) == keys.SPOT
        prices, best, why = packaged_prices(), None, ""
        for sku in catalog.skus():
            if sku.cloud != self.obs.switches.cloud or unusable(sku, model, self.now.date()):
                continue
            layout = self._lay_out(GpuFacts.of(sku), strict=True)
            if isinstance(layout, Cause):
                why = why or str(layout.facts["why"])
                continue
            rank = _rank(sku, layout, prices.find(sku.instance_type), spot=spot)
            if best is None or rank < best[0]:
                best = (rank, sku, layout)
        if best is None:
            facts = {"preset": self.preset.name, "why": why or "none can be had"}
            return Cause(Reason.NO_INSTANCE_TYPE_FITS, facts)
        return self._ours(NodeKind(best[1].instance_type, best[2], gpu_nodes=True))


def _rank(sku: Sku, layout: Layout, price: Price | None, *, spot: bool) -> tuple[bool, bool, float, int, int, str]:
    """As ``api.sizing.choose`` ranks: one node before several, then the price, then the least GPU memory."""
    money = cost(layout.nodes, price, spot=spot)
    memory = layout.nodes * sku.total_gpu_memory
    return money is None, layout.nodes > 1, money or 0.0, memory, layout.nodes, sku.instance_type


def _living(obs: Observation) -> list[Obj]:
    """Machines of this Workspace, those that stay first; without what a deleted namesake leaves behind."""
    staying = [item for item in obs.machines if not is_leaving(item)]
    if len(staying) == len(obs.machines):
        return sorted(staying, key=lambda item: str(item["metadata"]["name"]))  # and no names are made up
    own = {machine_name(obs.namespace, obs.name, obs.uid, index) for index in range(_MOST)}
    found = [item for item in obs.machines if not is_leaving(item) or item["metadata"]["name"] in own]
    return sorted(found, key=lambda item: (is_leaving(item), str(item["metadata"]["name"])))


def _type_label(node: Obj) -> str | None:
    return (node["metadata"].get("labels") or {}).get(keys.INSTANCE_TYPE_LABEL)


def _made_type(obs: Observation) -> str | None:
    """The type of the Machines that were made without one being written."""
    kinds = [kind for kind in map(type_of, _living(obs)) if kind != "unknown"]
    return kinds[0] if kinds else None
