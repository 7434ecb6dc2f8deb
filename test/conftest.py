"""Fixtures of the whole suite: API servers to test against, and what must hold for every run.

``api_server`` is a bare API server (nothing reconciles built-in kinds), ``cluster`` one with the controllers and
the scheduler of Kubernetes. Both come as the embedded one, and as the real one too when ``KUBEBUILDER_ASSETS``
names its binaries, so that every test that uses them runs on both. ``crd_server`` is for tests of custom resources
alone: besides those two it comes as a server of a current Kubernetes. One server of each sort serves a whole
session: a test works in a namespace of its own (``namespace``) and names cluster-scoped objects uniquely.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from kaito.local.cluster import read_kubeconfig
from kaito.local.supervisor import tail
from manager import debug
from manager.client import Client
from manager.config import RestConfig
from manager.resources import NAMESPACES
from manager.testing.controlplane import ControlPlane, assets, has_extensions

_START_SECONDS = 60.0

# What a busy machine needs longer for is no finding of a property test.
hypothesis.settings.register_profile(
    "suite", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("suite")

# looptime asks for the current loop in synchronous tests too; Python 3.11 would then make one that nobody closes.
asyncio.set_event_loop(None)


@dataclass(frozen=True, slots=True)
class Server:
    """An API server to test against."""

    kind: str  # "embedded", "real" or "current"
    config: RestConfig
    kubeconfig: Path
    kubectl: str | None
    core: RestConfig | None = None  # the server that has the namespaces, where it is another


# ------------------------------------------------------------------ every run


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seed", type=int, default=None, help="Seed of everything random; printed in the header.")


def pytest_configure(config: pytest.Config) -> None:
    os.environ.setdefault(debug.ENV, "1")  # misuse of the framework is an error in every test
    seed = config.getoption("--seed")
    if seed is None:  # the workers of a parallel run have the seed of the whole run
        seed = getattr(config, "workerinput", {}).get("seed", random.SystemRandom().randrange(2**32))
    config.stash[_SEED] = int(seed)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Of pytest-xdist: what a worker is started with."""
    node.workerinput["seed"] = node.config.stash[_SEED]


def pytest_report_header(config: pytest.Config) -> str:
    real = os.environ.get("KUBEBUILDER_ASSETS") or "unset: real API server not tested"
    return f"seed: {config.stash[_SEED]} (--seed)   KUBEBUILDER_ASSETS: {real}"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test on every API server at hand; a test of an acceptance list carries its number in its id."""
    numbers = [number for mark in metafunc.definition.iter_markers("acceptance") for number in mark.args]
    if numbers:
        metafunc.fixturenames.append("_acceptance")
        # Of the smallest scope: a wider one would sort tests by their numbers, and start servers anew in between.
        metafunc.parametrize("_acceptance", ["+".join(sorted(numbers))], scope="function")
    for name in _SERVERS:
        if name in metafunc.fixturenames:
            only = metafunc.definition.get_closest_marker("embedded_only")
            if not os.environ.get("KAITO_SOAK"):
                only = only or metafunc.definition.get_closest_marker("real_in_soak")
            folder = assets()
            kinds = ["embedded", "real"] if folder and only is None else ["embedded"]
            if name == "crd_server" and folder and only is None and has_extensions(folder):
                kinds.append("current")
            metafunc.parametrize(name, kinds, indirect=True, scope="session")


def pytest_itemcollected(item: pytest.Item) -> None:
    """A parallel run keeps a file on one worker, for its fixtures; all that load the engine share one, because two
    engines at once on two cores run into every time limit. Marked here: pytest-xdist reads the groups before any
    ``pytest_collection_modifyitems`` of a conftest runs."""
    item.add_marker(pytest.mark.xdist_group("engine" if _is_heavy(item) else item.path.name))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest group first, so that the other worker has enough left to do beside it."""
    items.sort(key=lambda item: not _is_heavy(item))


def _is_heavy(item: pytest.Item) -> bool:
    return item.path.parent.name == "e2e" or item.get_closest_marker("engine") is not None


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.skipped and isinstance(report.longrepr, tuple):
        _skips.append(f"{report.nodeid}: {report.longrepr[2]}")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Where nothing may be missing (KAITO_NO_SKIPS), a skip is a failure, unless the test needs a GPU."""
    unexpected = [skip for skip in _skips if "GPU" not in skip]
    if os.environ.get("KAITO_NO_SKIPS") and unexpected:
        sys.stderr.write("\nskipped, although nothing may be missing here:\n  " + "\n  ".join(unexpected) + "\n")
        session.exitstatus = 1


_SERVERS = ("api_server", "cluster", "stack", "crd_server")
_SEED = pytest.StashKey[int]()
_skips: list[str] = []


@pytest.fixture(scope="session")
def _acceptance() -> str:
    """The numbers of the acceptance lists that a test shows, for its id only."""
    return ""


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """The run's seed, mixed with the test's name, so that one test can be repeated alone."""
    return random.Random(f"{request.config.stash[_SEED]}/{request.node.name}").randrange(2**32)


# ------------------------------------------------------------------ servers


class _Pool:
    """The servers of a session. A fixture whose parameter changes from test to test would start and stop them each
    time; here each is started when it is first asked for, and all stop at the end."""

    def __init__(self) -> None:
        self._open = ExitStack()
        self._embedded: dict[tuple[bool, str], Server] = {}
        self._planes: dict[tuple[bool, str], ControlPlane] = {}

    def close(self) -> None:
        self._open.close()

    def get(self, kind: str, *, controllers: bool, of: str = "") -> Server:
        """``of``: whose it is, where what others leave behind would disturb."""
        if kind == "embedded":
            if (controllers, of) not in self._embedded:
                started = self._open.enter_context(_embedded(controllers=controllers))
                self._embedded[controllers, of] = started
            return self._embedded[controllers, of]
        plane = self._plane(controllers=controllers, of=of)
        if kind == "real":
            return Server("real", plane.rest_config(), plane.kubeconfig, kubectl())
        config, kubeconfig = plane.extensions_config(), plane.extensions_kubeconfig
        return Server("current", config, kubeconfig, kubectl(), core=plane.rest_config())

    def _plane(self, *, controllers: bool, of: str) -> ControlPlane:
        """The one without controllers has a current server for custom resources beside it, where there is one."""
        if (controllers, of) not in self._planes:
            folder = assets()
            extensions = not controllers and not of and folder is not None and has_extensions(folder)
            started = ControlPlane.start(controllers=controllers, extensions=extensions)
            self._planes[controllers, of] = self._open.enter_context(started)
        return self._planes[controllers, of]


@pytest.fixture(scope="session")
def _pool() -> Iterator[_Pool]:
    pool = _Pool()
    yield pool
    pool.close()


@pytest.fixture(scope="session")
def api_server(request: pytest.FixtureRequest, _pool: _Pool) -> Server:
    """An API server without any controller."""
    return _pool.get(request.param, controllers=False)


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest, _pool: _Pool) -> Server:
    """An API server with the controllers and the scheduler of Kubernetes, without nodes."""
    return _pool.get(request.param, controllers=True)


@pytest.fixture(scope="session")
def crd_server(request: pytest.FixtureRequest, _pool: _Pool) -> Server:
    """An API server for custom resources: embedded, kube-apiserver, and a current apiextensions-apiserver."""
    return _pool.get(request.param, controllers=False)


@contextmanager
def _embedded(*, controllers: bool) -> Iterator[Server]:
    folder = Path(tempfile.mkdtemp(prefix="embedded-"))
    process, kubeconfig = start_embedded(folder, controllers=controllers)
    try:
        yield Server("embedded", read_kubeconfig(kubeconfig), kubeconfig, kubectl())
    finally:
        process.terminate()
        process.wait(20)
        shutil.rmtree(folder)


def start_embedded(folder: Path, *, controllers: bool) -> tuple[subprocess.Popen[bytes], Path]:
    """Start `kaito apiserver` in a folder and wait until it answers."""
    kubeconfig = folder / "kubeconfig"
    flag = "--controllers" if controllers else "--no-controllers"
    log = folder / "apiserver.log"
    argv = [sys.executable, "-m", "kaito", "apiserver", f"--data-dir={folder / 'data'}", "--port=0", flag]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*argv, f"--kubeconfig-out={kubeconfig}"], stdout=output, stderr=output, stdin=subprocess.DEVNULL
        )
    deadline = time.monotonic() + _START_SECONDS
    while not (kubeconfig.exists() and asyncio.run(_answers(read_kubeconfig(kubeconfig)))):
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            raise RuntimeError(f"the embedded API server did not start: {tail(log)}")
        time.sleep(0.05)
    return process, kubeconfig


async def _answers(config: RestConfig) -> bool:
    from manager.errors import ManagerError

    try:
        async with Client(config) as client:
            return (await client.text("/readyz")).startswith("ok")
    except ManagerError:
        return False


def kubectl() -> str | None:
    """The kubectl to drive: the one beside the real API server, else the one on PATH."""
    folder = assets()
    beside = folder / "kubectl" if folder else None
    return str(beside) if beside and beside.exists() else shutil.which("kubectl")


@pytest.fixture
async def namespace(request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """A fresh namespace on the server that the test uses; it is not waited for when it goes."""
    used = next(n for n in _SERVERS if n in request.fixturenames)
    server = request.getfixturevalue(used)
    name = f"t-{uuid.uuid4().hex[:10]}"
    async with Client(server.core or server.config) as client:
        await client.create(NAMESPACES, {"metadata": {"name": name}})
        yield name
        await client.delete(NAMESPACES, name)
