"""The generated CRDs: fresh, structural, old enough for Kubernetes 1.20, with the columns users know."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from api.crds import crds, machine_crd, nodeclaim_crd, render_files, workspace_crd
from api.webhook import service_client, workspace_webhook

ROOT = Path(__file__).parents[2]


def nodes(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every schema node below and including this one, with its path."""
    yield path, schema
    for name, inner in schema.get("properties", {}).items():
        yield from nodes(inner, f"{path}.{name}")
    if "items" in schema:
        yield from nodes(schema["items"], f"{path}[]")
    if isinstance(schema.get("additionalProperties"), dict):
        yield from nodes(schema["additionalProperties"], f"{path}[*]")


def all_nodes() -> list[tuple[str, dict[str, Any]]]:
    return [
        (f"{crd['spec']['names']['kind']}{path}", node)
        for crd in (*crds(), nodeclaim_crd())
        for version in crd["spec"]["versions"]
        for path, node in nodes(version["schema"]["openAPIV3Schema"])
    ]


def test_files_are_fresh() -> None:
    """config/ holds what the models say now."""
    for name, text in render_files():
        assert (ROOT / "config" / name).read_text() == text, "run: python hack/generate.py"


def test_check_program_passes() -> None:
    """`hack/generate.py --check`, which CI runs, finds nothing stale."""
    done = subprocess.run(
        [sys.executable, "hack/generate.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stdout) == (0, "")


def test_check_program_finds_stale_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A changed file is reported, not rewritten, and the exit status says so."""
    monkeypatch.syspath_prepend(str(ROOT))
    from hack import generate

    stale = tmp_path / "config" / "crd" / "workspaces.kaito.sh.yaml"
    stale.parent.mkdir(parents=True)
    stale.write_text("old")
    monkeypatch.setattr(generate, "ROOT", tmp_path)
    monkeypatch.setattr(sys, "argv", ["generate.py", "--check"])

    assert generate.main() == 1
    assert stale.read_text() == "old"


def test_every_node_is_structural() -> None:
    """Each node has a type (or is int-or-string), no reference, and no default: absence must stay visible."""
    for path, node in all_nodes():
        assert "type" in node or node.get("x-kubernetes-int-or-string"), path
        assert not {"$ref", "allOf", "oneOf", "title"} & set(node), path
        assert "default" not in node or path == "NodeClaim.spec.expireAfter", path


def test_unknown_fields_are_kept_only_where_the_shape_is_not_ours() -> None:
    """A pod template and volumes are the only parts of any kind without a schema."""
    loose = {path for path, node in all_nodes() if node.get("x-kubernetes-preserve-unknown-fields")}

    assert loose == {
        "Workspace.inference.template",
        "Workspace.inference.adapters[].source.volumeSource",
        "Workspace.tuning.input.volumeSource",
        "Workspace.tuning.output.volumeSource",
    }


def test_every_rule_says_what_it_wants() -> None:
    """Each CEL rule has a message, at the node that it is about."""
    rules = [(path, rule) for path, node in all_nodes() for rule in node.get("x-kubernetes-validations", ())]

    assert len(rules) > 20
    assert all(set(rule) == {"rule", "message"} and rule["message"] for _, rule in rules)


def test_every_field_is_described() -> None:
    """`kubectl explain` is a manual: every named field has a description."""
    bare = [
        path
        for path, node in all_nodes()
        if not path.endswith(("[]", "[*]", ".metadata")) and not node.get("description")
    ]

    assert bare == []


@pytest.mark.parametrize("version", [0, 1])
def test_workspace_columns(version: int) -> None:
    """Both versions print the same columns: six by default, six more on request."""
    columns = workspace_crd()["spec"]["versions"][version]["additionalPrinterColumns"]

    assert [item["name"] for item in columns if not item.get("priority")] == [
        "Instance",
        "ResourceReady",
        "InferenceReady",
        "WorkspaceReady",
        "Age",
    ]
    assert [item["name"] for item in columns if item.get("priority") == 1] == [
        "JobStarted",
        "WorkspaceSucceeded",
        "TargetNodeCount",
        "State",
        "Nodes",
        "Reason",
    ]


def test_workspace_versions() -> None:
    """v1alpha1 is stored, v1beta1 served beside it with the same schema; there is no spec block."""
    spec = workspace_crd()["spec"]
    first, second = spec["versions"]

    assert [(item["name"], item["served"], item["storage"]) for item in (first, second)] == [
        ("v1alpha1", True, True),
        ("v1beta1", True, False),
    ]
    assert first["schema"] == second["schema"]
    assert spec["conversion"] == {"strategy": "None"}
    assert set(first["schema"]["openAPIV3Schema"]["properties"]) == {
        "apiVersion",
        "kind",
        "metadata",
        "resource",
        "inference",
        "tuning",
        "status",
    }
    assert spec["names"]["shortNames"] == ["wk", "wks"]
    assert spec["names"]["categories"] == ["workspace"]


def test_template_keeps_unknown_fields() -> None:
    """A pod template is an object whose fields are all kept."""
    schema = workspace_crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    template = schema["properties"]["inference"]["properties"]["template"]

    assert (template["type"], template["x-kubernetes-preserve-unknown-fields"]) == ("object", True)


def test_machine_shape() -> None:
    """The Machine is Karpenter's: cluster-scoped, nothing required at the top, quantities as int or string."""
    spec = machine_crd()["spec"]
    version = spec["versions"][0]
    schema = version["schema"]["openAPIV3Schema"]

    assert (spec["scope"], spec["names"]["categories"], "shortNames" in spec["names"]) == (
        "Cluster",
        ["karpenter"],
        False,
    )
    assert "required" not in schema
    assert "required" not in schema["properties"]["spec"]
    requests = schema["properties"]["spec"]["properties"]["resources"]["properties"]["requests"]
    assert requests["additionalProperties"]["x-kubernetes-int-or-string"] is True
    kubelet = schema["properties"]["spec"]["properties"]["kubelet"]["properties"]
    assert {"clusterDNS", "cpuCFSQuota", "imageGCHighThresholdPercent"} <= set(kubelet)
    assert [(item["name"], item.get("priority", 0)) for item in version["additionalPrinterColumns"]] == [
        ("Type", 0),
        ("Zone", 0),
        ("Node", 0),
        ("Ready", 0),
        ("Age", 0),
        ("Capacity", 1),
        ("Provisioner", 1),
        ("Template", 1),
    ]


def test_files_are_yaml() -> None:
    """What is written reads back as what was generated."""
    webhook = workspace_webhook(service_client())

    assert [yaml.safe_load(text) for _, text in render_files()] == [*crds(), nodeclaim_crd(), webhook]


def test_nodeclaim_shape() -> None:
    """The NodeClaim is Karpenter's: cluster-scoped, spec immutable, three required parts, its columns."""
    spec = nodeclaim_crd()["spec"]
    version = spec["versions"][0]
    claim = version["schema"]["openAPIV3Schema"]["properties"]["spec"]

    assert (spec["scope"], spec["names"]["categories"], version["name"]) == ("Cluster", ["karpenter"], "v1")
    assert version["schema"]["openAPIV3Schema"]["required"] == ["spec"]
    assert set(claim["required"]) == {"requirements", "nodeClassRef"}
    assert set(claim["properties"]["nodeClassRef"]["required"]) == {"group", "kind", "name"}
    assert "kubelet" not in claim["properties"]
    assert claim["properties"]["expireAfter"]["default"] == "720h"
    assert claim["properties"]["requirements"]["maxItems"] == 100
    assert claim["x-kubernetes-validations"] == [{"rule": "self == oldSelf", "message": "spec is immutable"}]
    assert [item["name"] for item in version["additionalPrinterColumns"]] == [
        "Type",
        "Capacity",
        "Zone",
        "Node",
        "Ready",
        "Age",
        "ImageID",
        "ID",
        "NodePool",
        "NodeClass",
        "Drifted",
    ]
