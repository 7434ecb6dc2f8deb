"""One model over two nodes: two Machines, two nodes, a StatefulSet of two pods, one engine in two parts.

The small model stands in for llama-2-13b's weights; half of its layers run in each pod. KAITO_SOAK=1 alone: a
start takes a minute of both cores.
"""

from __future__ import annotations

import json
import os
import signal
import urllib.request
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from manager.testing.controlplane import assets

if TYPE_CHECKING:
    from conftest import Stack

pytestmark = [pytest.mark.e2e, pytest.mark.engine, pytest.mark.timeout(900)]
SOAK = bool(os.environ.get("KAITO_SOAK"))
NAME = "two-nodes"
MANIFEST = {
    "apiVersion": "kaito.sh/v1alpha1",
    "kind": "Workspace",
    "metadata": {"name": NAME},
    "resource": {
        "instanceType": "Standard_NV36ads_A10_v5",
        "count": 2,
        "labelSelector": {"matchLabels": {"apps": NAME}},
    },
    "inference": {
        "preset": {
            "name": "llama-2-13b-chat",
            "accessMode": "private",
            "presetOptions": {"image": "example.com/kaito-llama-2-13b-chat:1"},
        }
    },
}


def _pods(stack: Stack) -> list[tuple[str, str, int]]:
    """Name, node and restarts of the Workspace's pods."""
    items = stack.get("pods", "-l", f"kaito.sh/workspace={NAME}")["items"]
    return sorted(
        (
            item["metadata"]["name"],
            item["spec"].get("nodeName", ""),
            sum(one["restartCount"] for one in item["status"].get("containerStatuses", [])),
        )
        for item in items
    )


def _ask(stack: Stack, prompt: str) -> str:
    address = stack.get("svc", NAME)["spec"]["clusterIP"]
    request = urllib.request.Request(
        f"http://{address}/chat",
        data=json.dumps({"prompt": prompt}).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as reply:
        return str(json.load(reply)["Result"])


def _engine(stack: Stack, pod: str) -> int:
    """The process of a pod's server."""
    uid = stack.get("pod", pod)["metadata"]["uid"]
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                text = (folder / "environ").read_bytes()
                command = (folder / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if uid.encode() in text and b"serve" in command:
                return int(folder.name)
    raise AssertionError(f"no process of {pod}")


if SOAK:

    @pytest.fixture(scope="module", params=["embedded", *(["real"] if assets() else [])])
    def both(make_stack: Callable[..., Stack], request: pytest.FixtureRequest) -> Iterator[Stack]:
        """A cluster in which the Workspace is ready."""
        stack = make_stack(request.param)
        stack.more_node_flags = [f"--weights=llama-2-13b-chat={files('kaito') / 'local/models/tiny-phi3'}"]
        try:
            stack.start_all()
            manifest = stack.cluster.home / "workspace.json"
            manifest.write_text(json.dumps(MANIFEST))
            stack.run("apply", "-f", str(manifest))
            stack.wait("the Workspace is ready", lambda: stack.workspace_is_ready(NAME), 240)
            yield stack
        finally:
            stack.stop_all()

    def test_two_pods_on_two_nodes_answer_together(both: Stack) -> None:
        """Each pod has a node of its own, and the Service's one address answers every time."""
        pods = _pods(both)
        assert [name for name, _, _ in pods] == [f"{NAME}-0", f"{NAME}-1"]
        assert len({node for _, node, _ in pods}) == 2

        answers = {_ask(both, "What is KAITO?") for _ in range(6)}

        assert len(answers) == 1
        assert answers.pop().startswith("What is KAITO?KAITO is")

    @pytest.mark.parametrize("rank", [1, 0])
    def test_a_part_that_dies_is_joined_by_the_other_again(both: Stack, rank: int) -> None:
        """Whichever part is killed, both start anew and the Workspace answers again."""
        before = _pods(both)
        os.kill(_engine(both, f"{NAME}-{rank}"), signal.SIGKILL)
        both.wait("the Workspace is not ready", lambda: not both.workspace_is_ready(NAME), 120)
        both.wait("the Workspace is ready", lambda: both.workspace_is_ready(NAME), 240)

        assert _ask(both, "What is KAITO?").startswith("What is KAITO?KAITO is")
        print(f"before {before}, after {_pods(both)}")
