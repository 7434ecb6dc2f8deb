"""What a person with kubectl sees: admitted, warned, refused with the way out, on every API server."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from api.testing import adapter, changed, inference, tuning, with_resource

if TYPE_CHECKING:
    from conftest import Guarded

Obj = dict[str, Any]
# One mark for all: numbers that differ would have pytest start the servers anew for each.
pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.acceptance("KS-A01", "KS-A06", "KS-A07", "KS-A08", "KS-A09", "KS-A10", "KS-A11", "KS-A12"),
]


async def test_the_seeds_manifests_are_admitted_and_warned_about(guarded: Guarded, sample: Obj) -> None:
    """Each manifest is created as it stands; kubectl prints what will not work on its GPU and what to fill in."""
    done = guarded.apply(sample)

    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"workspace.kaito.sh/{sample['metadata']['name']} created"
    assert "Warning: Standard_NC6s_v3 has NVIDIA V100, compute capability 7.0" in done.stderr
    assert ("Warning: " in done.stderr and "ACR_REPO_HERE" in done.stderr) == ("HERE" in json.dumps(sample))


DENIED = 'admission webhook "validation.workspace.kaito.sh" denied the request: validation failed: '
REFUSED = [
    (
        inference("phi-3-mini-4k-instuct"),
        "inference.preset.name: Unsupported inference preset name",
        "phi-3-mini-4k-instruct",
    ),
    (inference(sku="Standard_Bad"), "resource.instanceType: Unsupported instance", "kaito skus"),
    (inference("falcon-40b", "Standard_NC6s_v3"), "Insufficient number of GPUs", "choose a larger"),
    (changed(inference(), "inference", None), "Either Inference or Tuning must be specified, not neither", "add"),
    (inference(adapters=[adapter(), adapter()]), "Duplicate adapter source name found: one", "of its own"),
    (with_resource(tuning(), count=2), "Tuning does not currently support multinode configurations", "write 1"),
    (tuning(method="dora"), "tuning.method: Method 'dora' is not supported", "lora or qlora"),
    (
        tuning(input={"urls": ["http://169.254.169.254/"]}),
        "tuning.input.urls[0]: Invalid URL",
        "https://host/path",
    ),
    (
        tuning(config="nowhere"),
        "Failed to evaluate validateConfigMap: ConfigMap nowhere does not exist",
        "create it",
    ),
    (inference(config="nowhere"), "inference.config: ConfigMap nowhere does not exist", "create it"),
]


@pytest.mark.parametrize("version", ["v1alpha1", "v1beta1"])
async def test_mistakes_are_refused_in_either_version(guarded: Guarded, version: str) -> None:
    """kubectl prints the field, upstream's words, and what to do instead; nothing is stored."""
    done = guarded.apply(*(obj | {"apiVersion": f"kaito.sh/{version}"} for obj, _, _ in REFUSED))

    assert done.returncode == 1
    assert done.stderr.count(DENIED) == len(REFUSED)
    for _, fragment, hint in REFUSED:
        assert fragment in done.stderr
        assert hint in done.stderr
    assert "No resources found" in guarded.kubectl("get", "workspace").stderr


async def test_all_mistakes_are_told_at_once(guarded: Guarded) -> None:
    """Two mistakes are two lines of one answer."""
    done = guarded.apply(inference("phi-9", "Standard_Bad"))

    assert 'The Workspace "ws" is invalid' in done.stderr
    assert "* resource.instanceType: Unsupported instance" in done.stderr
    assert "* inference.preset.name: Unsupported inference preset name" in done.stderr


async def test_changes(guarded: Guarded) -> None:
    """What was decided stays; adapters, data and output may change."""
    serving, training = inference(), tuning() | {"metadata": {"name": "train"}}
    assert guarded.apply(serving, training).returncode == 0
    refused = [
        (
            changed(serving, "resource.labelSelector.matchLabels", {"apps": "y"}),
            "resource.labelSelector: field is immutable",
        ),
        (
            changed(serving, "resource.instanceType", "Standard_NC96ads_A100_v4"),
            "resource.instanceType: field is immutable",
        ),
        (changed(serving, "resource.count", 2), "resource.count: field is immutable"),
        (changed(serving, "inference.preset.name", "phi-2"), "inference.preset: field is immutable"),
        (changed(training, "tuning.preset.name", "phi-2"), "Preset cannot be changed"),
        (changed(training, "tuning.method", "lora"), "Method cannot be changed"),
        (training | {"metadata": {"name": "ws"}}, "Inference field cannot be toggled once set"),
    ]
    allowed = [
        changed(serving, "inference.adapters", [adapter(strength="0.5")]),
        changed(training, "tuning.input.urls", ["https://example.com/other.parquet"]),
        changed(training, "tuning.output.image", "example.com/adapters/phi:0.0.2"),
    ]

    denied = guarded.apply(*(obj for obj, _ in refused))
    assert denied.returncode == 1
    assert denied.stderr.count(DENIED) == len(refused)
    assert [fragment for _, fragment in refused if fragment not in denied.stderr] == []
    done = guarded.apply(*allowed)
    assert (done.returncode, done.stdout.count("configured")) == (0, 3), done.stderr


async def test_settings_that_exist_are_read(guarded: Guarded) -> None:
    """A ConfigMap of the same namespace is looked at: a context that the model does not have is refused."""
    settings: Obj = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "engine"},
        "data": {"inference_config.yaml": "vllm:\n  max-model-len: 4096\n"},
    }
    too_long = changed(settings, "data", {"inference_config.yaml": "vllm:\n  max-model-len: 20480\n"})
    obj = inference("microsoft/phi-3-mini-4k-instruct", config="engine")

    guarded.apply(too_long)
    refused = guarded.apply(obj)
    guarded.apply(settings)
    admitted = guarded.apply(obj)

    assert "max-model-len 20480 exceeds model's maximum supported context window 4096" in refused.stderr
    assert admitted.returncode == 0, admitted.stderr


async def test_a_server_side_dry_run_judges_and_stores_nothing(guarded: Guarded) -> None:
    """`--dry-run=server` warns and refuses as the real thing, for apply in both of its ways."""
    for flags in (("--dry-run=server",), ("--dry-run=server", "--server-side")):
        good = guarded.apply(inference("phi-2"), flags=flags)
        bad = guarded.apply(inference("phi-9"), flags=flags)

        assert good.returncode == 0, good.stderr
        assert "(server dry run)" in good.stdout.replace("serverside-applied (server dry run)", "(server dry run)")
        assert "Warning: inference.preset.name: upstream has retired phi-2" in good.stderr
        assert "Unsupported inference preset name" in bad.stderr
    assert "No resources found" in guarded.kubectl("get", "workspace").stderr


async def test_wide_output(guarded: Guarded) -> None:
    """`kubectl get wk -o wide` has the seed's columns first and ours after them."""
    guarded.apply(inference())

    header, row = guarded.kubectl("get", "wk", "-o", "wide").stdout.splitlines()

    assert header.split() == [
        *("NAME", "INSTANCE", "RESOURCEREADY", "INFERENCEREADY", "WORKSPACEREADY", "AGE"),
        *("JOBSTARTED", "WORKSPACESUCCEEDED", "TARGETNODECOUNT", "STATE", "NODES", "REASON"),
    ]
    assert row.split()[:2] == ["ws", "Standard_NC24ads_A100_v4"]


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ("workspace.inference.adapters", "LoRA adapters to load, at most 10"),
        ("workspace.inference.adapters.strength", 'a number from "0" to "1" written as a string'),
        ("workspace.inference.template", "A pod template"),
        ("workspace.resource.instanceType", "for example Standard_NC24ads_A100_v4"),
        ("workspace.tuning.output.imagePushSecret", "credentials to push the image"),
        ("workspace.status.conditions", "ResourceReady: the nodes are there"),
        ("machine.spec.requirements", "node.kubernetes.io/instance-type names the instance type"),
    ],
)
async def test_explain(guarded: Guarded, field: str, words: str) -> None:
    """`kubectl explain` is the manual: it has the sentence for each field."""
    done = guarded.kubectl("explain", field)

    assert done.returncode == 0, done.stderr
    assert words in " ".join(done.stdout.split())


async def test_a_deletion_is_never_held_up(guarded: Guarded) -> None:
    """A finalizer of an object that today's rules would refuse can be removed, and the object goes."""
    obj = inference()
    obj["metadata"]["finalizers"] = ["example.com/hold"]
    guarded.apply(obj)
    guarded.kubectl("delete", "workspace", "ws", "--wait=false")

    freed = guarded.kubectl("patch", "workspace", "ws", "--type=merge", "-p", '{"metadata":{"finalizers":null}}')

    assert freed.returncode == 0, freed.stderr
    assert "not found" in guarded.kubectl("get", "workspace", "ws").stderr
