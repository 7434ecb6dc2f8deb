"""The models: what is read, what is refused, and that reading is cheap."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from api import v1beta1
from api.errors import InvalidSpec
from api.v1alpha1 import Workspace
from api.v1alpha5 import Machine

SAMPLES = sorted((Path(__file__).parents[2] / "config" / "samples").glob("*.yaml"))


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_samples_parse(path: Path) -> None:
    """Every sample manifest is a Workspace of both versions."""
    obj = yaml.safe_load(path.read_text())

    ws = Workspace.parse(obj)

    assert ws.name == obj["metadata"]["name"]
    assert ws.resource.instance_type == "Standard_NC6s_v3"
    assert ws.preset is not None
    assert v1beta1.Workspace.parse(obj).preset == ws.preset


def test_what_is_absent_stays_absent() -> None:
    """Neither a count nor an instance type is invented."""
    ws = Workspace.parse({"metadata": {"name": "x"}, "resource": {"labelSelector": {}}})

    assert ws.resource.count is None
    assert ws.resource.instance_type is None
    assert ws.inference is None
    assert ws.status.conditions == ()


def test_null_counts_as_absent() -> None:
    """A null list or map reads as an empty one, as in Kubernetes."""
    obj = {
        "metadata": {"name": "x", "labels": None, "finalizers": None},
        "resource": {"labelSelector": {"matchLabels": None}, "preferredNodes": None},
        "inference": {"adapters": None},
        "status": {"conditions": None},
    }

    ws = Workspace.parse(obj)

    assert ws.metadata.finalizers == ()
    assert ws.resource.label_selector.as_labels() == {}


def test_all_problems_are_listed_with_their_paths() -> None:
    """A manifest with two mistakes gets both, each under the manifest's own field names."""
    with pytest.raises(InvalidSpec) as caught:
        Workspace.parse({"metadata": {"name": "x"}, "resource": {"count": "many"}})

    assert {path for path, _ in caught.value.problems} == {"resource.count", "resource.labelSelector"}
    assert caught.value.name == "x"


def test_pydantic_does_not_leak() -> None:
    """The error that callers see is ours, without pydantic's as its cause."""
    with pytest.raises(InvalidSpec) as caught:
        Workspace.parse({})

    assert not isinstance(caught.value.__cause__, ValidationError)


def test_models_are_frozen() -> None:
    """A parsed object cannot be changed by accident."""
    ws = Workspace.parse({"resource": {"labelSelector": {}}})

    with pytest.raises(ValidationError):
        ws.kind = "Other"  # type: ignore[misc]


def test_machine_requirements() -> None:
    """A Machine tells its instance type and its quantities as they were written."""
    machine = Machine.parse(
        {
            "metadata": {"name": "ws1"},
            "spec": {
                "requirements": [
                    {"key": "kubernetes.io/os", "operator": "In", "values": ["linux"]},
                    {"key": "node.kubernetes.io/instance-type", "operator": "In", "values": ["A", "B"]},
                ],
                "resources": {"requests": {"storage": "50Gi", "nvidia.com/gpu": 1}},
            },
            "status": {"providerID": "local:///x"},
        }
    )

    assert machine.instance_type == "A"
    assert machine.spec.resources.requests == {"storage": "50Gi", "nvidia.com/gpu": 1}
    assert machine.status.provider_id == "local:///x"


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("api", ("pydantic", "yaml", "json")),
        ("api.catalog", ("pydantic_core", "yaml")),
        ("api.v1alpha1", ("yaml", "api.catalog")),
    ],
)
def test_imports_stay_light(module: str, absent: tuple[str, ...]) -> None:
    """Importing a part of the room brings nothing that it does not need."""
    code = f"import {module}, sys; print(*[name for name in {absent!r} if name in sys.modules])"
    root = Path(__file__).parents[2]

    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)

    assert loaded.stdout.split() == []
