"""What dies may die at any moment: the operator in the middle of provisioning, the API server after any answer."""

from __future__ import annotations

import json
import os
import random
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from conftest import Stack

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

SAMPLE = Path(__file__).parent.parent.parent / "config" / "samples" / "1-phi-3-inference.yaml"
# Where a kill falls is sampled in time over the seconds that provisioning takes; the soak run takes many.
_ROUNDS = 12 if os.environ.get("KAITO_SOAK") else 3
_SPAN = 3.0


def _manifest(name: str, folder: Path) -> Path:
    """The seed's first manifest under another name, with a label of its own so that nodes are not shared."""
    text = SAMPLE.read_text().replace("workspace-phi-3-mini", name).replace("apps: phi-3", f"apps: {name}")
    path = folder / f"{name}.yaml"
    path.write_text(text)
    return path


def _state(stack: Stack, name: str) -> dict[str, Any]:
    """What provisioning must end in, whatever died on the way: counts, owners, the node that carries the pod."""
    selector = f"kaito.sh/workspace={name}"
    machines = stack.get("machines", "-l", selector)["items"]
    deployments = stack.get("deploy", name, "--ignore-not-found")
    pods = [p for p in stack.get("pods", "-l", selector)["items"] if not p["metadata"].get("deletionTimestamp")]
    return {
        "machines": len(machines),
        "launched": [bool(machine.get("status", {}).get("nodeName")) for machine in machines],
        "deployment": deployments.get("metadata", {}).get("name"),
        "service": stack.get("svc", name, "--ignore-not-found").get("metadata", {}).get("name"),
        "pods on the machine's node": [
            pod["spec"].get("nodeName") == machine.get("status", {}).get("nodeName")
            for pod in pods
            for machine in machines
        ],
    }


def test_killing_the_operator_at_any_moment_ends_in_the_same_state(
    stack: Stack, seed: int, tmp_path: Path
) -> None:
    """SIGKILL in the middle of provisioning and a restart: one Machine, one Deployment, the pod on its node."""
    rng = random.Random(seed)
    wanted = {
        "machines": 1,
        "launched": [True],
        "service": None,
        "deployment": None,
        "pods on the machine's node": [True],
    }
    for round_ in range(_ROUNDS):
        name = f"killed-{round_}-{seed % 10000}"
        moment = rng.uniform(0, _SPAN)
        stack.run("apply", "-f", str(_manifest(name, tmp_path)))
        time.sleep(moment)  # the sampled kill point, not a wait for anything
        stack.kill("operator")
        stack.start("operator")

        expected = {**wanted, "deployment": name, "service": name}
        stack.wait(
            f"{name} killed after {moment:.2f} s ends right", lambda n=name, e=expected: _state(stack, n) == e
        )
        stack.run("delete", "workspace", name, "--wait=false")
        stack.wait(f"{name} is gone", lambda n=name: _state(stack, n)["machines"] == 0)
    nodes = [node["metadata"]["name"] for node in stack.get("nodes")["items"]]
    stack.wait("only the base node is left", lambda: len(stack.get("nodes")["items"]) == 1)
    assert "kaito-local" in nodes


@pytest.mark.embedded_only(reason="the durability of etcd is not ours to test, and here it runs without fsync")
def test_killing_the_api_server_loses_nothing_that_was_acknowledged(stack: Stack, seed: int) -> None:
    """SIGKILL during a stream of writes: every write that kubectl was told of is there after a restart."""
    rng = random.Random(seed)
    acknowledged: dict[str, str] = {}
    for round_ in range(_ROUNDS):
        for number in range(rng.randrange(3, 9)):
            name = f"kept-{round_}-{number}"
            stack.run("create", "configmap", name, f"--from-literal=n={number}")
            acknowledged[name] = str(number)
        stack.kill("apiserver")
        stack.start("apiserver")
        found = {item["metadata"]["name"]: item.get("data", {}) for item in stack.get("configmaps")["items"]}
        lost = {name: n for name, n in acknowledged.items() if found.get(name, {}).get("n") != n}
        assert lost == {}, json.dumps(lost)
    stack.run("delete", "configmap", *acknowledged)


@pytest.mark.embedded_only(reason="the real control plane of a test cannot be restarted in place")
def test_the_operator_carries_on_after_the_api_server_was_gone(stack: Stack, seed: int, tmp_path: Path) -> None:
    """A Workspace applied right after the API server came back is provisioned by the operator that was running."""
    name = f"after-{seed % 10000}"
    stack.kill("apiserver")
    stack.start("apiserver")
    stack.run("apply", "-f", str(_manifest(name, tmp_path)))

    stack.wait("one Machine, launched", lambda: _state(stack, name)["launched"] == [True])
    stack.run("delete", "workspace", name, "--wait=false")
    stack.wait("gone", lambda: _state(stack, name)["machines"] == 0)
