"""`kaito up --cloud fake-azure`: the operator with the Azure provider and its real SDK, and no cloud at all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from kaito.local.azure_env import environment
from manager.testing.controlplane import assets

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

SAMPLE = Path(__file__).parent.parent.parent / "config" / "samples" / "1-phi-3-inference.yaml"
# On a real API server too where all is run; the other end-to-end tests have both anyhow.
KINDS = ["embedded", "real"] if assets() and os.environ.get("KAITO_SOAK") else ["embedded"]
# The engine is not what is shown here: the preset's image is a program that waits.
IMAGES = {
    "images": [
        {
            "match": ["*/kaito-{preset}:*", "*/kaito-base:*"],
            "entrypoint": ["kaito"],
            "commands": {"kaito": ["{python}", "-c", "import time; time.sleep(3600)"]},
        }
    ]
}
FAULTS = {
    "max_operations": 1,
    "faults": [{"verb": "put", "answer": "quota-crp"}, {"verb": "put", "answer": "throttled", "retry_after": 1}],
}


@pytest.fixture(scope="module", params=KINDS)
def azure(
    request: pytest.FixtureRequest, make_stack: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("files")
    images, faults = folder / "images.yaml", folder / "faults.yaml"
    images.write_text(yaml.safe_dump(IMAGES))
    faults.write_text(yaml.safe_dump(FAULTS))
    stack = make_stack(request.param, cloud="fake-azure", faults=faults)
    stack.more_node_flags = [f"--images={images}"]
    try:
        stack.start_all()
        yield stack
    finally:
        stack.stop_all()


def kaito(stack: Any, command: str, *flags: str) -> tuple[int, dict[str, Any]]:
    """A command of ours, as somebody at a terminal who has read azure.env; its exit code, and its JSON."""
    settings = environment(stack.cluster.azure_home, stack.cluster.ports.arm)
    done = subprocess.run(
        [sys.executable, "-P", "-m", "kaito", command, "-o", "json", f"--kubeconfig={stack.kubeconfig}", *flags],
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def test_the_first_workspace_gets_an_aks_node(azure: Any) -> None:
    """The seed's first manifest: a quota that is told and passes, a pool, a node, a pod on it; then no trace.

    The stand-in is killed in between and goes on from its file. Takes real processes and their time.
    """
    azure.run("apply", "-f", str(SAMPLE))

    def reasons() -> set[str]:
        listed = azure.get("workspace", "workspace-phi-3-mini").get("status", {}).get("conditions", [])
        return {item["reason"] for item in listed}

    azure.wait("the quota is told", lambda: "QuotaExceeded" in reasons())
    (machine,) = azure.get("machines")["items"]
    # An edit of the Machine starts its attempts afresh; nobody here wants to wait a minute for the next one.
    azure.run(
        *("patch", "machine", machine["metadata"]["name"], "--type=merge"),
        *("-p", json.dumps({"spec": {"resources": {"requests": {"storage": "60Gi"}}}})),
    )
    azure.wait("an aks node", lambda: len(azure.get("nodes", "-l", "agentpool")["items"]) == 1)
    (node,) = azure.get("nodes", "-l", "agentpool")["items"]
    pool = node["metadata"]["labels"]["kubernetes.azure.com/agentpool"]
    assert node["spec"]["providerID"].startswith("azure:///subscriptions/")
    assert f"aks-{pool}-" in node["metadata"]["name"]
    assert node["metadata"]["labels"]["node.kubernetes.io/instance-type"] == "Standard_NC6s_v3"

    def on_the_node() -> bool:
        pods = azure.get("pods", "-l", "kaito.sh/workspace=workspace-phi-3-mini")["items"]
        return any(
            pod["spec"].get("nodeName") == node["metadata"]["name"]
            and any("running" in item["state"] for item in pod.get("status", {}).get("containerStatuses", []))
            for pod in pods
        )

    azure.wait("a pod runs on it", on_the_node)
    code, document = kaito(azure, "doctor", "--sku=Standard_NC6s_v3", "--timeout=60")
    assert (code, {item["verdict"] for item in document["checks"]}) == (0, {"pass"}), document

    with urllib.request.urlopen(
        f"http://127.0.0.1:{azure.cluster.ports.operator_metrics}/metrics", timeout=30
    ) as reply:
        metrics = reply.read().decode()
    assert "kaito_orphaned_gpu_hours 0.0" in metrics
    assert "kaito_orphaned_instances 0.0" in metrics

    azure.kill("arm")
    azure.start("arm")
    code, document = kaito(azure, "audit", "--grace=0")
    assert (code, document["compared"]["instances"]) == (0, 1)

    azure.run("delete", "workspace", "workspace-phi-3-mini", timeout=120)
    azure.wait("no node and no Machine", lambda: not azure.get("machines")["items"])
    azure.wait("no aks node", lambda: not azure.get("nodes", "-l", "agentpool")["items"])
    code, document = kaito(azure, "audit", "--grace=0")
    assert (code, document["compared"]["instances"]) == (0, 0)
