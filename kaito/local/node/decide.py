"""What to do next for a pod: pure.

In: a `PodView` and the time. Out: a `Plan`: containers to start, containers to stop, whether the pod is
over, and when to look again if nothing happens. The rules are the kubelet's: init containers one after the
other, sidecars stay, back-off before restarts, a failed liveness or startup probe stops a container, a
deadline fails the pod, sidecars end after the main containers and in reverse order.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from kaito.local.node.probes import Kind as ProbeKind
from kaito.local.node.views import ContainerView, Ending, PodView, Role, restarts


@dataclass(frozen=True, slots=True)
class Stop:
    """End one container within `grace` seconds; `why` is for the event."""

    name: str
    grace: float
    why: str


@dataclass(frozen=True, slots=True)
class Plan:
    """The next step. `wake_at` is None when only an event can change the plan."""

    start: tuple[str, ...] = ()
    stop: tuple[Stop, ...] = ()
    ending: Ending | None = None
    wake_at: float | None = None


@dataclass(slots=True)
class _Draft:
    start: list[str] = field(default_factory=list)
    stop: list[Stop] = field(default_factory=list)
    ending: Ending | None = None
    times: list[float] = field(default_factory=list)

    def try_start(self, container: ContainerView, now: float) -> None:
        if container.retry_at <= now:
            self.start.append(container.name)
        else:
            self.times.append(container.retry_at)

    def done(self) -> Plan:
        wake = min(self.times) if self.times else None
        return Plan(tuple(self.start), tuple(self.stop), self.ending, wake)


def decide(view: PodView, now: float) -> Plan:
    """The plan for the pod as it is."""
    draft = _Draft()
    spec = view.pod["spec"]
    if view.deleting or view.ending:
        _stop_all(view, draft)
        return draft.done()
    deadline = spec.get("activeDeadlineSeconds")
    if deadline is not None and view.started_at is not None:
        if now >= view.started_at + float(deadline):
            message = "Pod was active on the node longer than the specified deadline"
            draft.ending = Ending("Failed", "DeadlineExceeded", message)
            _stop_all(view, draft)
            return draft.done()
        draft.times.append(view.started_at + float(deadline))
    if _initialize(view, draft, now):
        _run_main(view, draft, now)
    _stop_unhealthy(view, draft)
    return draft.done()


def initialized(view: PodView) -> bool:
    """Whether the main containers may run; once one has run, this stays true."""
    if any(c.run is not None for c in view.of(Role.MAIN)):
        return True
    return all(c.ready if c.role is Role.INIT else c.started for c in view.of(Role.INIT, Role.SIDECAR))


def main_done(view: PodView) -> bool:
    """Whether every main container has ended and none is to be started again."""
    return all(c.exit is not None and not restarts(c, view.restart_policy) for c in view.of(Role.MAIN))


def init_failed(view: PodView) -> bool:
    """Whether an init container has failed for good."""
    return not initialized(view) and any(
        c.exit is not None and c.exit.exit_code != 0 and not restarts(c, view.restart_policy)
        for c in view.of(Role.INIT)
    )


def _initialize(view: PodView, draft: _Draft, now: float) -> bool:
    """Take the init containers one step further; True when the main ones may run."""
    begun = any(c.run is not None for c in view.of(Role.MAIN))
    if init_failed(view):
        _stop_all(view, draft)
        return False
    for container in view.of(Role.INIT, Role.SIDECAR):
        if container.role is Role.INIT and (begun or container.ready):
            continue
        if not container.running:
            if not (begun and main_done(view)):
                draft.try_start(container, now)
            if not begun:
                return False
        elif (not begun and not container.started) or container.role is Role.INIT:
            return False
    return True


def _run_main(view: PodView, draft: _Draft, now: float) -> None:
    for container in view.of(Role.MAIN):
        if container.run is None or (container.exit is not None and restarts(container, view.restart_policy)):
            draft.try_start(container, now)
    if main_done(view):
        _stop_sidecars(view, draft)


def _stop_unhealthy(view: PodView, draft: _Draft) -> None:
    for container in view.of(Role.SIDECAR, Role.MAIN):
        if not container.running:
            continue
        for kind, verdict in (
            (ProbeKind.STARTUP, container.probes.startup),
            (ProbeKind.LIVENESS, container.probes.liveness),
        ):
            if verdict.passed is False:
                probe = container.spec.get(kind.field) or {}
                grace = probe.get("terminationGracePeriodSeconds")
                why = f"Container {container.name} failed {kind.value.lower()} probe, will be restarted"
                seconds = _grace(view) if grace is None else float(grace)
                draft.stop.append(Stop(container.name, seconds, why))
                break


def _stop_all(view: PodView, draft: _Draft) -> None:
    others = [c for c in view.of(Role.INIT, Role.MAIN) if c.running]
    draft.stop += [Stop(c.name, _grace(view), f"Stopping container {c.name}") for c in others]
    if not others:
        _stop_sidecars(view, draft)


def _stop_sidecars(view: PodView, draft: _Draft) -> None:
    running = [c for c in view.of(Role.SIDECAR) if c.running]
    if running:
        name = running[-1].name
        draft.stop.append(Stop(name, _grace(view), f"Stopping container {name}"))


def _grace(view: PodView) -> float:
    meta, spec = view.pod["metadata"], view.pod["spec"]
    if view.deleting and meta.get("deletionGracePeriodSeconds") is not None:
        return float(meta["deletionGracePeriodSeconds"])
    value = spec.get("terminationGracePeriodSeconds")
    return 30.0 if value is None else float(value)
