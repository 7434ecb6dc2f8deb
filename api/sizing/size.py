"""The one function that says how a model runs on an instance type.

In: model facts x GPUs x wish. Out: a ``Sizing``: nodes, layout, the longest request, every intermediate figure,
and each layout that was tried and left with its reason. Pure. The fewest nodes win; on them the widest
tensor-parallel group, because it answers fastest; whole copies of the model where one GPU holds it with ease.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from api.quantity import GIB
from api.sizing.facts import Assumptions, GpuFacts, ModelFacts
from api.sizing.memory import Budget, Layout, budget, tensor_sizes

_MOST_TOLD: Final = 12


@dataclass(frozen=True, slots=True)
class Candidate:
    """A layout that was looked at. ``rejected`` says why it was not taken; empty for the one that was."""

    layout: Layout
    budget: Budget
    rejected: str = ""


@dataclass(frozen=True, slots=True)
class Sizing:
    """How a model runs on one kind of node.

    Attributes:
        fits: there is a layout with room for ``context`` tokens. Otherwise ``candidate`` is the one that came
            nearest, and ``why`` says what is missing.
        context: tokens that one request had to be able to have.
        nodes: how many nodes; of a sizing that does not fit, how many were looked at last.
        max_model_len: the longest request that fits, at most the model's own limit; 0 where nothing fits.
        cache_tokens: tokens that all caches together hold.
        rejected: the other layouts, in the order in which they were tried.
    """

    model: ModelFacts
    gpu: GpuFacts
    fits: bool
    context: int
    nodes: int
    candidate: Candidate
    max_model_len: int
    cache_tokens: int
    rejected: tuple[Candidate, ...]
    why: str

    @property
    def layout(self) -> Layout:
        """The layout that was taken."""
        return self.candidate.layout

    @property
    def budget(self) -> Budget:
        """Its figures."""
        return self.candidate.budget

    @property
    def gpus(self) -> int:
        """GPUs of all nodes, in use or not."""
        return self.nodes * self.gpu.count

    @property
    def total_gpu_memory(self) -> int:
        """Memory of all GPUs of all nodes."""
        return self.gpus * self.gpu.memory


def size(
    model: ModelFacts,
    gpu: GpuFacts,
    *,
    context: int | None = None,
    nodes: int | None = None,
    assumed: Assumptions | None = None,
    fixed: Layout | None = None,
    copies: bool = True,
) -> Sizing:
    """How ``model`` runs on nodes with these GPUs.

    ``context`` is what one request must be able to have, in tokens (default: the assumed one, or the model's limit
    where that is shorter); ``nodes`` is an exact number of nodes, otherwise as few as fit are taken. ``fixed`` is
    the layout to judge, whatever others there are; its nodes are the number of nodes. Without ``copies`` no node
    runs more than one copy of the model.

    Raises:
        ValueError: no GPUs, or a context or number of nodes below 1.
    """
    if gpu.count < 1:
        raise ValueError(f"{gpu.name} has no GPU")
    if (context is not None and context < 1) or (nodes is not None and nodes < 1):
        raise ValueError("context and nodes are 1 at least")
    rules = assumed or Assumptions()
    wanted = context if context is not None else min(rules.context, model.context_limit)
    tried: list[Candidate] = []
    if wanted > model.context_limit:
        one = Layout(nodes or 1)
        candidate = Candidate(one, budget(model, gpu, one, rules))
        why = f"{wanted} tokens were asked for and the model's own limit is {model.context_limit}"
        return _not_fitting(model, gpu, wanted, candidate, (), why)
    if fixed is not None:
        only = Candidate(fixed, budget(model, gpu, fixed, rules))
        if _short(only, wanted) <= 0:
            return _fitting(model, gpu, wanted, only, ())
        only = _left(only, None, wanted)
        return _not_fitting(model, gpu, wanted, only, (), _missing(model, gpu, only, fixed.nodes))
    for count in [nodes] if nodes is not None else range(1, (rules.most_nodes if model.distributed else 1) + 1):
        candidates = [
            Candidate(layout, budget(model, gpu, layout, rules))
            for layout in layouts(model, gpu, count, copies=copies)
        ]
        chosen = next((item for item in candidates if _short(item, wanted) <= 0 and _sensible(item, model)), None)
        tried += [_left(item, chosen, wanted) for item in candidates if item is not chosen]
        if chosen is not None:
            return _fitting(model, gpu, wanted, chosen, _told(tried))
    nearest = min(tried, key=lambda item: _short(item, wanted))
    rest = _told([item for item in tried if item is not nearest])
    return _not_fitting(model, gpu, wanted, nearest, rest, _missing(model, gpu, nearest, nodes))


def _told(tried: list[Candidate]) -> tuple[Candidate, ...]:
    """The layouts worth telling of: a model that needs 40 nodes fails alike on 2 to 38."""
    return tuple(tried if len(tried) <= _MOST_TOLD else tried[: _MOST_TOLD // 2] + tried[-_MOST_TOLD // 2 :])


def layouts(model: ModelFacts, gpu: GpuFacts, nodes: int, *, copies: bool = True) -> Iterator[Layout]:
    """Every way to lay the model over so many nodes, the best first.

    A model that cannot be spread over nodes runs as a copy on each of the nodes that were written.
    """
    if nodes > 1 and not model.distributed:
        for layout in layouts(model, gpu, 1, copies=copies):
            yield Layout(nodes, layout.tensor, layout.pipeline, layout.data * nodes)
        return
    if copies and nodes == 1 and gpu.count > 1:
        yield Layout(1, 1, 1, gpu.count)
    for tensor in tensor_sizes(model, gpu.count):
        stages = min(nodes * gpu.count // tensor, model.layers)
        yield Layout(nodes, tensor, stages, 1)


def _short(item: Candidate, wanted: int) -> int:
    """Bytes that are missing on the fullest GPU; none where it is not positive."""
    return item.budget.per_token * wanted - item.budget.cache


def _sensible(item: Candidate, model: ModelFacts) -> bool:
    if item.layout.data <= item.layout.nodes:
        return True
    # Copies on one node pay where at least half of each GPU is left for the cache (upstream's rule), and where one
    # GPU's cache holds what the model's limit allows: else a long request fits a group of GPUs and no single one.
    return 2 * model.weights <= item.budget.memory and item.budget.tokens >= model.context_limit


def _left(item: Candidate, chosen: Candidate | None, wanted: int) -> Candidate:
    short = _short(item, wanted)
    if item.budget.cache <= 0:
        reason = (
            f"weights {_gib(item.budget.weights)} and overhead {_gib(item.budget.overhead)} exceed the "
            f"{_gib(item.budget.usable)} that the engine takes of each GPU"
        )
    elif short > 0:
        reason = f"the cache holds {item.budget.tokens} tokens, {wanted} are wanted"
    elif item.layout.data > item.layout.nodes:
        reason = f"copies leave a cache for {item.budget.tokens} tokens on each GPU; one group shares more"
    else:
        reason = "fits too; a wider tensor-parallel group answers faster"
        if chosen is not None and chosen.layout.data > chosen.layout.nodes:
            reason = "fits too; copies on each GPU answer more requests at a time"
    return Candidate(item.layout, item.budget, reason)


def _fitting(
    model: ModelFacts, gpu: GpuFacts, wanted: int, chosen: Candidate, tried: tuple[Candidate, ...]
) -> Sizing:
    tokens = chosen.budget.tokens
    longest = min(tokens, model.context_limit)
    why = f"{chosen.layout}: {_gib(chosen.budget.cache)} of each GPU are left for a cache of {tokens} tokens"
    nodes = chosen.layout.nodes
    return Sizing(model, gpu, True, wanted, nodes, chosen, longest, tokens * chosen.layout.data, tried, why)


def _not_fitting(
    model: ModelFacts, gpu: GpuFacts, wanted: int, nearest: Candidate, rest: tuple[Candidate, ...], why: str
) -> Sizing:
    tokens = nearest.budget.tokens
    longest = min(tokens, model.context_limit)
    return Sizing(model, gpu, False, wanted, nearest.layout.nodes, nearest, longest, tokens, rest, why)


def _missing(model: ModelFacts, gpu: GpuFacts, nearest: Candidate, written: int | None) -> str:
    where = f"{nearest.layout.nodes} x {gpu.name} ({nearest.layout})"
    text = f"{where}: {nearest.rejected}"
    if written is None and not model.distributed:
        text += "; this preset cannot be spread over nodes"
    return text


def _gib(size: int) -> str:
    return f"{size / GIB:.1f} GiB"
