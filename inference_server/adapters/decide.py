"""What to do next about adapters: a pure function of what is wanted, what is here and what time it is.

In: an `Observation`. Out: a `Step`: sources to begin or to give up, a set to bring into force, when to look
again. All or nothing: a list comes into force when each of its adapters is sound, and until then the set in
force stays as it is. Nothing here waits, reads a clock or touches a file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from api.adapters import AdapterList, WantedAdapter
from inference_server.adapters.artifact import AdapterFacts
from inference_server.adapters.limits import Limits
from inference_server.adapters.model import AdapterSlot
from inference_server.adapters.wanted import Source, source_of
from inference_server.sources.store import Held


@dataclass(frozen=True, slots=True)
class Artifact:
    """A sound adapter in the store. ``held`` keeps its files there. ``note`` is for the observed list."""

    digest: str
    key: str
    held: Held = field(repr=False)
    folder: str = ""  # below the held one
    facts: AdapterFacts = field(default_factory=lambda: AdapterFacts(0, {}, {}))
    note: str = ""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why something failed, and when it is tried again (on the loop's clock)."""

    reason: str
    message: str
    failures: int
    retry_at: float


@dataclass(frozen=True, slots=True)
class Planned:
    """A set of adapters that can come into force. ``fallback`` marks the last good one, kept from before."""

    revision: str
    adapters: tuple[tuple[WantedAdapter, Artifact], ...]
    fallback: bool = False

    @property
    def content(self) -> tuple[tuple[str, float, str], ...]:
        """What makes two sets the same: names, strengths and digests, in order."""
        return tuple((wanted.name, wanted.strength, artifact.digest) for wanted, artifact in self.adapters)


@dataclass(frozen=True, slots=True)
class LoadedSet:
    """What requests are answered with. A slot of None stands for a strength of 0: the base model."""

    planned: Planned
    slots: Mapping[str, AdapterSlot | None] = field(default_factory=dict)
    combined: AdapterSlot | None = None

    def all_slots(self) -> tuple[AdapterSlot, ...]:
        """Every slot of the set, each once."""
        own = [slot for slot in self.slots.values() if slot is not None]
        return tuple(dict.fromkeys(own if self.combined is None else [*own, self.combined]))


@dataclass(frozen=True, slots=True)
class Observation:
    """Everything that the decision depends on."""

    wanted: AdapterList
    fetching: frozenset[Source]
    artifacts: Mapping[Source, Artifact]
    failures: Mapping[Source, Failure]
    in_force: LoadedSet | None
    limits: Limits
    last_good: Planned | None = None
    set_failure: tuple[Planned, Failure] | None = None  # a set that the engine refused
    now: float = 0.0


@dataclass(frozen=True, slots=True)
class Step:
    """What to do. ``problems``: adapters that keep the list out of force although each was fetched."""

    begin: tuple[Source, ...] = ()
    give_up: tuple[Source, ...] = ()
    switch: Planned | None = None
    problems: Mapping[str, str] = field(default_factory=dict)
    wake_at: float | None = None


def decide(seen: Observation) -> Step:
    """The next step."""
    wanted = {source_of(adapter): adapter for adapter in seen.wanted.adapters}
    give_up = tuple(sorted(seen.fetching - set(wanted), key=str))
    begin, times = [], []
    for source in wanted:
        if source in seen.artifacts or source in seen.fetching:
            continue
        failure = seen.failures.get(source)
        if failure is None or failure.retry_at <= seen.now:
            begin.append(source)
        else:
            times.append(failure.retry_at)
    switch, problems = _switch(seen)
    if seen.set_failure is not None and switch is None and seen.set_failure[1].retry_at > seen.now:
        times.append(seen.set_failure[1].retry_at)
    return Step(tuple(begin), give_up, switch, problems, min(times, default=None))


def _switch(seen: Observation) -> tuple[Planned | None, dict[str, str]]:
    pairs = [(adapter, seen.artifacts.get(source_of(adapter))) for adapter in seen.wanted.adapters]
    complete = tuple((adapter, artifact) for adapter, artifact in pairs if artifact is not None)
    problems: dict[str, str] = {}
    if len(complete) == len(pairs):
        planned = Planned(seen.wanted.revision, complete)
        problems = problems_of(planned, seen.limits)
        if not problems and not _refused(planned, seen):
            current = seen.in_force.planned if seen.in_force else None
            return (None if current == planned else planned), {}
    failed = problems or seen.set_failure or any(source_of(a) in seen.failures for a in seen.wanted.adapters)
    if seen.in_force is None and seen.last_good is not None and failed and not _refused(seen.last_good, seen):
        return seen.last_good, problems
    return None, problems


def _refused(planned: Planned, seen: Observation) -> bool:
    if seen.set_failure is None:
        return False
    failed, failure = seen.set_failure
    return failed.content == planned.content and failure.retry_at > seen.now


def problems_of(planned: Planned, limits: Limits) -> dict[str, str]:
    """What forbids a set whose adapters are each sound, by adapter."""
    names = [wanted.name for wanted, _ in planned.adapters]
    if len(names) > limits.max_adapters:
        return dict.fromkeys(
            names[limits.max_adapters :],
            f"the list has {len(names)} adapters and the server takes {limits.max_adapters}; remove some",
        )
    mixed = [(wanted.name, artifact.facts.rank) for wanted, artifact in planned.adapters if wanted.strength > 0]
    rank = sum(own for _, own in mixed)
    if len(mixed) > 1 and rank > limits.max_rank:
        return {
            name: f"the ranks of all adapters add up to {rank}, above the server's {limits.max_rank}; "
            f"raise --max-lora-rank to {rank}, or remove adapters"
            for name, _ in mixed
        }
    return {}
