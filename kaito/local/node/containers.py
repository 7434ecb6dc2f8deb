"""One container of a pod over all its runs: start, probe, stop, and the view of it.

In: the worker's decisions. Out: `ContainerView`s, events, and a wake-up of the worker whenever something
moved. It owns the container's folder (`containers/<name>/<run>`), its probe tasks and its back-off. A
failure to start is not an exception to the caller but a `Trouble` in the view, as the kubelet shows it in
the waiting state. Never to happen: two runs at a time.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from api.keys import INSECURE_REGISTRIES
from kaito.local.node.backoff import BackOff
from kaito.local.node.env import ConfigMissing, Lookup, PodFacts, container_env, words
from kaito.local.node.host import Host
from kaito.local.node.images import Image, ImageUnknown
from kaito.local.node.logs import parse_time, tail_text
from kaito.local.node.names import with_addresses
from kaito.local.node.paths import PathMap
from kaito.local.node.pipes import collect
from kaito.local.node.prober import Target, target_ports, unsupported
from kaito.local.node.probes import Kind, ProbeSpec, ProbeState, Verdict, run_probe
from kaito.local.node.runtime import Attempt, ContainerConfig, ContainerGone, ExecFailed, Exit
from kaito.local.node.views import ContainerView, Role, Run, Trouble
from kaito.local.node.volumes import MountFailed, mounts
from manager.types import Obj

log = logging.getLogger("kaito.local.node.containers")

_CONFIG_RETRY = 5.0
_TERMINATION_LIMIT = 4096
_FALLBACK_LINES, _FALLBACK_LIMIT = 80, 2048
_OUTPUT_LIMIT = 10 * 1024
_KEEP_RUNS = 2
_READ_SECONDS = 10.0
THREADS = "OMP_NUM_THREADS"  # of the agent's: pods then use so many, and not a thread for each core

# Starts a task of the pod's group, whose failure is logged and does not end the pod's worker.
Spawn = Callable[[Coroutine[None, None, None]], asyncio.Task[None]]


class Container:
    """One container of one pod."""

    def __init__(
        self,
        host: Host,
        pod: Obj,
        spec: Obj,
        role: Role,
        folder: Path,
        spawn: Spawn,
        wake: Callable[[], None],
    ) -> None:
        self.spec, self.role, self.folder = spec, role, folder
        self.name = str(spec["name"])
        self.attempt: Attempt | None = None
        self._host, self._pod = host, pod
        self._spawn, self._wake = spawn, wake
        self._previous: Exit | None = None
        self._exit: Exit | None = None
        self._probes = ProbeState()
        self._tasks: list[asyncio.Task[None]] = []
        self._trouble: Trouble | None = None
        self._backoff = BackOff()
        self._image_backoff = BackOff()
        self._stopping: asyncio.Task[None] | None = None
        self._stop_at = 0.0
        self._hurry = asyncio.Event()
        self._read: tuple[Attempt, float, dict[str, int]] | None = None

    @property
    def _runs(self) -> Path:
        return self.folder / "runs"

    # the view

    def view(self) -> ContainerView:
        """The container as it is now."""
        run = None
        if self.attempt is not None:
            if self.attempt.exit is not None and self._exit is None:
                self._exit = self._with_message(self.attempt)
            run = Run(self.attempt.number, self.attempt.started_at, self._exit)
        return ContainerView(
            spec=self.spec,
            role=self.role,
            run=run,
            previous=self._previous,
            probes=self._probes,
            trouble=self._trouble,
            backoff=self._backoff,
        )

    @property
    def stopping(self) -> bool:
        return self._stopping is not None

    def log_of(self, *, previous: bool) -> Path | None:
        """The log file of the newest run, or of the one before it."""
        if self.attempt is None:
            return None
        if not previous:
            return self.attempt.log_path
        older = self._runs / str(self.attempt.number - 1) / "log"
        return older if older.exists() else None

    def note_read(self, tally: Mapping[str, int]) -> None:
        """A client has read the newest run's log from its beginning: so many bytes of each stream."""
        if self.attempt is not None:
            self._read = (self.attempt, time.monotonic(), dict(tally))

    def recently_read(self) -> Mapping[str, int]:
        """What such a client has seen, if it was just now: kubectl (1.36) reads the log and then attaches."""
        if self._read is None or self._read[0] is not self.attempt:
            return {}
        return self._read[2] if time.monotonic() - self._read[1] < _READ_SECONDS else {}

    def _with_message(self, attempt: Attempt) -> Exit:
        exit_ = attempt.exit
        assert exit_ is not None  # noqa: S101 - the caller asked
        if exit_.message:
            return exit_
        try:
            data = (attempt.folder / "termination-log").read_bytes()[-_TERMINATION_LIMIT:]
        except OSError:
            data = b""
        message = data.decode(errors="replace")
        fallback = self.spec.get("terminationMessagePolicy") == "FallbackToLogsOnError"
        if not message and fallback and exit_.exit_code != 0:
            message = tail_text(attempt.log_path, _FALLBACK_LINES, _FALLBACK_LIMIT)
        return replace(exit_, message=message) if message else exit_

    # found again after an agent restart

    async def adopt(self, seen: Obj | None) -> None:
        """Take over the newest run on disk; `seen` is the container's status in the API server."""
        numbers = sorted(int(p.name) for p in self._runs.glob("*") if p.name.isdigit())
        if not numbers:
            return
        if len(numbers) > 1:
            before = Attempt(self._runs / str(numbers[-2]), numbers[-2], lambda: None)
            await before.adopt()
            if before.running:  # an agent died between two runs; there is only ever one
                await before.stop(0)
            self._previous = self._with_message(before)
        self.attempt = Attempt(self._runs / str(numbers[-1]), numbers[-1], self._wake)
        await self.attempt.adopt()
        if self.attempt.running:
            same = seen is not None and seen.get("restartCount") == self.attempt.number
            if same and seen is not None:
                # What was ready stays ready until a probe says otherwise.
                self._probes = ProbeState(
                    startup=Verdict(passed=True if seen.get("started") else None),
                    readiness=Verdict(passed=True if seen.get("ready") else None),
                )
            self._start_probes()

    # start

    async def start(self, facts: PodFacts, places: Mapping[str, Path], lookup: Lookup) -> None:
        """Begin the next run, or note why that is impossible."""
        now = self._host.clock()
        try:
            image = self._host.images.lookup(str(self.spec.get("image", "")))
        except ImageUnknown as err:
            self._image_failed(str(err), now)
            return
        self._image_backoff = BackOff()
        number = self.attempt.number + 1 if self.attempt else 0
        attempt = Attempt(self._runs / str(number), number, self._wake)
        if problem := unsupported(self.spec):
            self._failed("CreateContainerConfigError", problem, now)
            return
        try:
            config = self._config(image, facts, places, lookup, attempt)
        except (ConfigMissing, MountFailed) as err:
            self._failed("CreateContainerConfigError", str(err), now)
            return
        if not config.argv:
            self._failed("CreateContainerError", "no command specified", now)
            return
        if self.attempt is not None and self._exit is not None:
            self._backoff = self._backoff.raise_(parse_time(self._exit.finished_at), now)
        self._event("Normal", "Pulled", f'Container image "{image.reference}" already present on machine')
        try:
            await attempt.start(config)
        except OSError as err:
            shutil.rmtree(attempt.folder, ignore_errors=True)
            self._failed("CreateContainerError", f"the supervisor did not start: {err}", now)
            return
        self._previous, self._exit = self._exit or self._previous, None
        self.attempt, self._trouble, self._probes = attempt, None, ProbeState()
        shutil.rmtree(self._runs / str(number - _KEEP_RUNS), ignore_errors=True)
        self._event("Normal", "Created", f"Created container {self.name}")
        if attempt.exit is not None and attempt.exit.reason == "StartError":
            self._event("Warning", "Failed", f"Error: {attempt.exit.message}")
            return
        self._event("Normal", "Started", f"Started container {self.name}")
        if hook := (self.spec.get("lifecycle") or {}).get("postStart"):
            self._tasks.append(self._spawn(self._post_start(hook)))
        self._start_probes()

    def retry_now(self) -> None:
        """What the container waits for may be there: do not sit out the delay."""
        if self._trouble is not None and self._trouble.reason.startswith("CreateContainer"):
            self._trouble = replace(self._trouble, retry_at=0.0)

    def _config(
        self, image: Image, facts: PodFacts, places: Mapping[str, Path], lookup: Lookup, attempt: Attempt
    ) -> ContainerConfig:
        home = self.folder / "home"
        home.mkdir(parents=True, exist_ok=True)
        wanted = container_env(self.spec, facts, lookup)
        paths = {**image.paths, **mounts(self.spec, places, wanted)}
        ending = str(self.spec.get("terminationMessagePath") or "/dev/termination-log")
        paths[ending] = str(attempt.folder / "termination-log")
        mapping = PathMap(paths)
        env = {**_base_env(home, facts.pod), **image.env, **wanted}
        known = self._host.known
        env = {key: with_addresses(mapping.rewrite(value), known) for key, value in env.items()}
        argv = image.argv(words(self.spec.get("command"), wanted), words(self.spec.get("args"), wanted))
        argv = [with_addresses(mapping.rewrite(word), known) for word in argv]
        argv = image.resolve(argv, env.get("PATH", os.defpath))
        cwd = mapping.rewrite(str(self.spec.get("workingDir") or ""))
        grace = facts.pod["spec"].get("terminationGracePeriodSeconds")
        return ContainerConfig(
            argv=argv,
            env=env,
            cwd=cwd if cwd and Path(cwd).is_dir() else str(home),
            tty=bool(self.spec.get("tty")),
            stdin=bool(self.spec.get("stdin")),
            stdinOnce=bool(self.spec.get("stdinOnce")),
            graceSeconds=30.0 if grace is None else float(grace),
            orphanSeconds=self._host.orphan_seconds,
            paths=paths,
        )

    def _image_failed(self, message: str, now: float) -> None:
        first = self._image_backoff.delay == 0
        self._image_backoff = self._image_backoff.raise_(now, now)
        reason = "ErrImagePull" if first else "ImagePullBackOff"
        image = self.spec.get("image", "")
        text = message if first else f'Back-off pulling image "{image}": {message}'
        self._trouble = Trouble(reason, text, now + self._image_backoff.delay)
        if first:
            self._event("Warning", "Failed", f'Failed to pull image "{image}": {message}')
        else:
            self._event("Normal", "BackOff", f'Back-off pulling image "{image}"')
        self._event("Warning", "Failed", f"Error: {reason}")

    def _failed(self, reason: str, message: str, now: float) -> None:
        fresh = self._trouble is None or self._trouble.message != message
        self._trouble = Trouble(reason, message, now + _CONFIG_RETRY)
        if fresh:
            self._event("Warning", "Failed", f"Error: {message}")

    async def _post_start(self, hook: Obj) -> None:
        ok, message = await self._host.prober.perform(hook, self.target(self._pod_ip()))
        if not ok:
            self._event("Warning", "FailedPostStartHook", f"PostStartHook failed: {message}")
            self.stop(0, f"Container {self.name} failed its postStart hook")

    # probes

    def _start_probes(self) -> None:
        """Startup first; liveness and readiness when it has passed."""
        startup = ProbeSpec.of(Kind.STARTUP, self.spec)
        if startup is not None and self._probes.startup.passed is not True:
            self._begin(startup)
            return
        for kind in (Kind.LIVENESS, Kind.READINESS):
            spec = ProbeSpec.of(kind, self.spec)
            if spec is not None:
                self._begin(spec)

    def _begin(self, spec: ProbeSpec) -> None:
        attempt = self.attempt
        if attempt is None:
            return
        target = self.target(self._pod_ip())

        async def check(probe: ProbeSpec) -> tuple[bool, str]:
            return await self._host.prober.perform(probe.action, target)

        def report(verdict: Verdict) -> None:
            if attempt is not self.attempt or not attempt.running:
                return
            if verdict.last is False:
                self._event("Warning", "Unhealthy", f"{spec.kind.value} probe failed: {verdict.message}")
            before = self._probes
            self._probes = before.with_(spec.kind, verdict)
            if spec.kind is Kind.STARTUP and verdict.passed:
                self._start_probes()
            self._wake()

        age = self._host.clock() - parse_time(attempt.started_at) if attempt.started_at else 0.0
        self._tasks.append(self._spawn(run_probe(spec, age, check, report)))

    def end_tasks(self) -> None:
        """Probes and hooks stop with the run."""
        for task in self._tasks:
            task.cancel()
        self._tasks.clear()

    def _pod_ip(self) -> str:
        return self._host.addresses.assign(str(self._pod["metadata"]["uid"]))

    def target(self, address: str) -> Target:
        """The container as probes and hooks see it."""
        host = self._host.host_ip if self._pod["spec"].get("hostNetwork") else address
        return Target(host, target_ports(self.spec), self._run_command)

    async def _run_command(self, command: Sequence[str]) -> tuple[int, str]:
        argv = self.command(command)
        if self.attempt is None or not argv:
            return 1, "container is not running"
        read_end, write_end = os.pipe()
        null = os.open(os.devnull, os.O_RDONLY)
        try:
            running = await self.attempt.exec(argv, (null, write_end, write_end))
        except (ContainerGone, ExecFailed) as err:
            os.close(read_end)
            return 126, str(err)
        finally:
            os.close(null)
            os.close(write_end)
        with running:
            return await collect(read_end, running.wait(), _OUTPUT_LIMIT)

    def command(self, argv: Sequence[str]) -> list[str]:
        """A command for this container with its paths and program names replaced."""
        if self.attempt is None:
            return list(argv)
        mapping = PathMap(self.attempt.paths)
        try:
            image = self._host.images.lookup(str(self.spec.get("image", "")))
        except ImageUnknown:
            return [mapping.rewrite(word) for word in argv]
        return image.resolve([mapping.rewrite(word) for word in argv], os.environ.get("PATH", os.defpath))

    # stop

    def stop(self, grace: float, why: str) -> None:
        """Begin to end the run; a shorter grace than that of a stop under way replaces it."""
        if self.attempt is None or not self.attempt.running:
            return
        at = asyncio.get_running_loop().time() + grace
        if self._stopping is None:
            self._stop_at = at
            self._event("Normal", "Killing", why)
            self._stopping = self._spawn(self._stop(self.attempt))
        elif at < self._stop_at - 0.5:
            self._stop_at = at
            self._hurry.set()

    async def _stop(self, attempt: Attempt) -> None:
        loop = asyncio.get_running_loop()
        self.end_tasks()
        try:
            if hook := (self.spec.get("lifecycle") or {}).get("preStop"):
                await self._pre_stop(hook)
            if self._stop_at > loop.time():
                await attempt.signal(signal.SIGTERM)
            while attempt.running and self._stop_at > loop.time():
                self._hurry.clear()
                waits = [asyncio.ensure_future(attempt.wait()), asyncio.ensure_future(self._hurry.wait())]
                try:
                    await asyncio.wait(
                        waits, timeout=self._stop_at - loop.time(), return_when=asyncio.FIRST_COMPLETED
                    )
                finally:
                    for wait in waits:
                        wait.cancel()
            await attempt.stop(0)
        finally:
            self._stopping = None
            self._wake()

    async def _pre_stop(self, hook: Obj) -> None:
        left = self._stop_at - asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(max(0.0, left)):
                ok, message = await self._host.prober.perform(hook, self.target(self._pod_ip()))
        except TimeoutError:
            ok, message = False, "the grace period is over"
        if not ok:
            self._event("Warning", "FailedPreStopHook", f"PreStopHook failed: {message}")

    def _event(self, type_: str, reason: str, note: str) -> None:
        self._host.recorder.event(self._pod, type_, reason, note, action=f"{reason}-{self.name}")


def _base_env(home: Path, pod: Obj) -> dict[str, str]:
    """What every process needs to run on this machine; of the agent's own environment only what is named here."""
    own = str(Path(sys.executable).parent)
    path = os.pathsep.join([own, *os.environ.get("PATH", os.defpath).split(os.pathsep)])
    return {
        "PATH": path,
        "HOME": str(home),
        "HOSTNAME": str(pod["metadata"]["name"]),
        "LANG": "C.UTF-8",
        "NO_PROXY": "*",
        "no_proxy": "*",
        "PYTHONUNBUFFERED": "1",
        **{name: os.environ[name] for name in (INSECURE_REGISTRIES, THREADS) if name in os.environ},
    }
