"""The observed list: what is in force, what is wanted, and why the two differ. Pure.

In: the observation of the last decision, what is being loaded and what still drains. Out: the answer of ``GET
/v1/adapters``. An adapter is Loaded only when requests are answered with it as it is wanted; ``revision`` is
that of the list in force, and empty where an older copy of the very list that is wanted had to be fallen back
on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from api.adapters import AdapterState, ObservedAdapter, ObservedAdapters, WantedAdapter
from inference_server.adapters.decide import Artifact, LoadedSet, Observation
from inference_server.adapters.wanted import source_of


def observed(
    seen: Observation,
    problems: Mapping[str, str],
    *,
    loading: bool,
    draining: Iterable[str],
    list_problem: str = "",
) -> ObservedAdapters:
    """The list. ``draining`` are names of adapters that requests still use and nobody can choose any more."""
    in_force = _by_name(seen.in_force)
    done = seen.in_force is not None and not seen.in_force.planned.fallback
    entries: list[ObservedAdapter] = []
    for wanted in seen.wanted.adapters:
        artifact = seen.artifacts.get(source_of(wanted))
        serving = in_force.get(wanted.name)
        if done and artifact is not None and serving == (wanted, artifact):
            entries.append(
                _entry(wanted, artifact, AdapterState.LOADED, "; ".join(_notes(artifact, list_problem)))
            )
            continue
        state, message = _on_its_way(wanted, artifact, seen, problems, loading)
        if serving is not None:
            message = f"{message}; until then {serving[1].digest} serves at strength {serving[0].strength:g}"
        entries.append(_entry(wanted, artifact, state, message))
    listed = {wanted.name for wanted in seen.wanted.adapters}
    for name, (wanted, artifact) in in_force.items():
        if name not in listed:
            entries.append(_entry(wanted, artifact, AdapterState.LOADED, "serves until the new list is in force"))
    entries += [
        ObservedAdapter(name=name, state=AdapterState.UNLOADING, message="requests still use it")
        for name in dict.fromkeys(draining)
        if name not in listed and name not in in_force
    ]
    return ObservedAdapters(revision=_revision(seen), adapters=tuple(entries))


def why_not(name: str, view: ObservedAdapters) -> str:
    """Why an adapter that is wanted cannot be chosen; empty for one that nobody wants."""
    for entry in view.adapters:
        if entry.name == name and entry.state in (AdapterState.PULLING, AdapterState.LOADING, AdapterState.FAILED):
            return f"{entry.state.value}: {entry.message}" if entry.message else entry.state.value
    return ""


def _revision(seen: Observation) -> str:
    if seen.in_force is None:
        return ""
    planned = seen.in_force.planned
    return "" if planned.fallback and planned.revision == seen.wanted.revision else planned.revision


def _by_name(loaded: LoadedSet | None) -> dict[str, tuple[WantedAdapter, Artifact]]:
    return {pair[0].name: pair for pair in loaded.planned.adapters} if loaded else {}


def _on_its_way(
    wanted: WantedAdapter, artifact: Artifact | None, seen: Observation, problems: Mapping[str, str], loading: bool
) -> tuple[AdapterState, str]:
    source = source_of(wanted)
    failure = seen.failures.get(source)
    if artifact is None:
        if failure is not None:
            return AdapterState.FAILED, _with_retry(failure.message, failure.retry_at, seen.now)
        return AdapterState.PULLING, ""
    if wanted.name in problems:
        return AdapterState.FAILED, problems[wanted.name]
    if seen.set_failure is not None:
        failed = seen.set_failure[1]
        return AdapterState.FAILED, _with_retry(failed.message, failed.retry_at, seen.now)
    if loading:
        return AdapterState.LOADING, ""
    waits = [a.name for a in seen.wanted.adapters if source_of(a) not in seen.artifacts or a.name in problems]
    return AdapterState.LOADING, f"is sound, and waits for {', '.join(waits)}" if waits else ""


def _with_retry(message: str, retry_at: float, now: float) -> str:
    seconds = max(0, round(retry_at - now))
    return f"{message}; tried again in {seconds} s" if seconds else f"{message}; tried again now"


def _notes(artifact: Artifact, list_problem: str) -> list[str]:
    newer = f"a newer list is not taken: {list_problem}" if list_problem else ""
    return [text for text in (*artifact.facts.warnings, artifact.note, newer) if text]


def _entry(wanted: WantedAdapter, artifact: Artifact | None, state: AdapterState, message: str) -> ObservedAdapter:
    return ObservedAdapter(
        name=wanted.name,
        state=state,
        image=wanted.image,
        digest=artifact.digest if artifact else None,
        strength=wanted.strength,
        rank=artifact.facts.rank if artifact else None,
        message=message,
    )
