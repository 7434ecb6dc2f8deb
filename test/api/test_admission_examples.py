"""The manifests that people have: the seed's, those of the v0.3 era, and one for each feature of the newer one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from api.catalog import presets
from api.testing import adapter, annotated, changed, inference, tuning, with_resource
from api.v1beta1 import API_VERSION as BETA
from api.validation import DEFAULT, V012, Switches, World, judge

Obj = dict[str, Any]
SAMPLES = sorted((Path(__file__).parents[2] / "config" / "samples").glob("*.yaml"))
BYO = Switches(node_auto_provisioning=False)
PVC = {"persistentVolumeClaim": {"claimName": "data"}}


def llama(size: str, sku: str, image: str = "example.com/llama:1", count: int | None = None) -> Obj:
    """An example of the v0.3 era whose image the user fills in."""
    preset: Obj = {"name": f"llama-2-{size}", "accessMode": "private"}
    if image:
        preset["presetOptions"] = {"image": image, "imagePullSecrets": ["IMAGE_PULL_SECRET_HERE"]}
    obj = inference(sku=sku) | {"inference": {"preset": preset}}
    return with_resource(obj, count=count)


def violations(obj: Obj, switches: Switches = DEFAULT, world: World | None = None) -> str:
    return "\n".join(map(str, judge(obj, switches=switches, world=world or World()).violations))


def said(obj: Obj, switches: Switches = DEFAULT) -> str:
    return "\n".join(judge(obj, switches=switches).warnings)


@pytest.mark.acceptance("KS-A01", "KS-A06", "KS-A07")
@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_the_seeds_manifests(path: Path) -> None:
    """The four manifests are admitted as they stand, in either version, with the truth about their GPU."""
    written = yaml.safe_load(path.read_text())

    for obj in (written, written | {"apiVersion": BETA}):
        verdict = judge(obj)
        assert verdict.violations == ()
        assert any("compute capability 7.0" in text for text in verdict.warnings)
    if "HERE" in path.read_text():
        assert "still holds the placeholder 'ACR_REPO_HERE'" in said(written)


V100, TWO_V100, FOUR_A100 = "Standard_NC6s_v3", "Standard_NC12s_v3", "Standard_NC96ads_A100_v4"


@pytest.mark.acceptance("KS-A02")
@pytest.mark.parametrize(
    ("preset", "sku"),
    [
        ("falcon-7b", TWO_V100),
        ("falcon-7b-instruct", TWO_V100),
        ("mistral-7b", TWO_V100),
        ("mistral-7b-instruct", TWO_V100),
        ("phi-2", V100),
        ("falcon-40b", FOUR_A100),
        ("falcon-40b-instruct", FOUR_A100),
    ],
)
def test_public_examples_of_the_older_era(preset: str, sku: str) -> None:
    """Each public preset on the instance type of its example is admitted."""
    assert violations(inference(preset, sku)) == ""


@pytest.mark.acceptance("KS-A03")
@pytest.mark.parametrize("size", ["7b", "7b-chat"])
def test_llama_7b_needs_an_image(size: str) -> None:
    """Llama is admitted as private with an image, the example's placeholder included, and refused without."""
    assert violations(llama(size, TWO_V100)) == ""
    assert violations(llama(size, TWO_V100, "REPO_HERE.azurecr.io/IMAGE_NAME_HERE:0.0.1")) == ""
    assert "When AccessMode is private, an image must be provided" in violations(llama(size, TWO_V100, ""))


@pytest.mark.acceptance("KS-A04", "KS-A05")
@pytest.mark.parametrize(
    ("size", "sku", "count"),
    [("13b", TWO_V100, 1), ("13b-chat", TWO_V100, 1), ("70b", FOUR_A100, 2), ("70b-chat", FOUR_A100, 2)],
)
def test_distributed_llama(size: str, sku: str, count: int) -> None:
    """The larger Llamas are admitted on the nodes of their examples."""
    assert violations(llama(size, sku, count=count)) == ""


@pytest.mark.acceptance("KS-A06")
@pytest.mark.parametrize(("preset", "sku"), [("falcon-7b", TWO_V100), ("phi-3-mini-128k-instruct", V100)])
def test_examples_with_adapters(preset: str, sku: str) -> None:
    """The examples with adapters are admitted with their strengths and their placeholders."""
    source = adapter(image="ACR_REPO_HERE.azurecr.io/ADAPTER_HERE:0.0.1", strength="1.0")

    assert violations(inference(preset, sku, adapters=[source])) == ""


@pytest.mark.acceptance("KS-A07", "KS-A08")
def test_tuning_example_and_its_mistakes() -> None:
    """The tuning example is admitted; each of the seven ways to spoil it is refused."""
    spoilt = {
        "multinode": with_resource(tuning(), count=2),
        "dora": tuning(method="dora"),
        "Input": tuning(input=None),
        "Output": tuning(output=None),
        "Preset": tuning(preset=None),
        "Invalid image format": tuning(output={"image": "example.com/phi", "imagePushSecret": "s"}),
        "lower-case": tuning(output={"image": "example.com/Phi:1", "imagePushSecret": "s"}),
    }

    assert violations(with_resource(tuning(), instanceType=V100)) == ""
    assert {fragment for fragment, obj in spoilt.items() if fragment not in violations(obj)} == set()


@pytest.mark.acceptance("KS-A09")
def test_instance_types() -> None:
    """A wrong type is refused; one that the cloud may have is admitted with a word about what is not checked."""
    assert "Unsupported instance" in violations(inference(sku="Standard_Bad"))
    for sku in ("Standard_NX1_v9", "Standard_D4s_v5"):
        assert violations(inference(sku=sku)) == ""
        assert f"'{sku}' is not in the catalogue" in said(inference(sku=sku))


@pytest.mark.acceptance("KS-A10")
def test_capacity() -> None:
    """Too few GPUs are refused; a T4 holds mistral-7b, since 14 GiB fit into 16."""
    assert "Insufficient number of GPUs" in violations(inference("falcon-40b", V100))
    assert violations(llama("70b", "Standard_NC24ads_A100_v4", count=2)) != ""
    assert violations(inference("mistral-7b", "Standard_NC4as_T4_v3")) == ""


@pytest.mark.acceptance("KS-A18")
def test_what_the_estimator_is_asked_is_admitted() -> None:
    """The estimator's inputs are admitted without a count; an unknown type and a small slice are not."""
    mig = Switches(node_auto_provisioning=False, mig=True)

    def sliced(preset: str, profile: str) -> Obj:
        return with_resource(inference(preset, sku=None), partition={"mode": "mig", "profile": profile})

    assert violations(inference("falcon-7b", "Standard_NV36ads_A10_v5")) == ""
    assert violations(inference("falcon-7b")) == ""
    assert violations(inference("qwen2.5-coder-32b-instruct")) == ""
    assert violations(changed(inference(), "inference", {"template": {"spec": {}}})) == ""
    assert "Unsupported instance" in violations(inference(sku="invalid-sku"))
    assert violations(sliced("phi-4", "3g.47gb"), mig) == ""
    assert "exceeds the 1g.10gb MIG slice" in violations(sliced("phi-4", "1g.10gb"), mig)


@pytest.mark.acceptance("KS-A19")
def test_every_model_of_the_catalogue_is_admitted_by_every_name() -> None:
    """Each model of the newer catalogue is admitted by its id and its aliases, whatever the case."""
    newer = [item for item in presets() if item.era == "v0.12"]
    names = [name for item in newer for name in (item.name, *item.aliases, item.hf_id or item.name)]

    assert len(newer) == 60
    assert {name for name in names if violations(inference(name, "Standard_ND96isr_H200_v5"))} == set()


FEATURES: dict[str, tuple[Obj, Switches]] = {
    "preset by alias": (inference("phi-4-mini-instruct"), V012),
    "preset by id": (inference("microsoft/phi-4"), V012),
    "any model of the hub": (inference("some-org/some-model-7b"), V012),
    "gated model with its token": (
        inference()
        | {
            "inference": {
                "preset": {"name": "llama-3.1-8b-instruct", "presetOptions": {"modelAccessSecret": "hf-token"}}
            }
        },
        V012,
    ),
    "settings of the engine": (inference("phi-4", config="settings"), V012),
    "adapter from an image": (inference("phi-4", adapters=[adapter(imagePullSecrets=["pull"])]), V012),
    "adapter from a volume": (inference("phi-4", adapters=[{"source": {"name": "v", "volumeSource": PVC}}]), V012),
    "transformers runtime": (
        annotated(inference("phi-4", adapters=[adapter(strength="0.5")]), runtime="transformers"),
        V012,
    ),
    "pod template": (
        changed(
            inference(),
            "inference",
            {"template": {"spec": {"containers": [{"name": "c", "image": "vllm/vllm-openai"}]}}},
        ),
        V012,
    ),
    "load balancer": (annotated(inference("phi-4"), enablelb="True"), V012),
    "nodes as many as needed": (inference("llama-3.3-70b-instruct"), DEFAULT),
    "two nodes": (with_resource(inference("Qwen/Qwen3.5-122B-A10B"), count=2), V012),
    "preferred nodes": (with_resource(inference("phi-4"), preferredNodes=["node-1"]), V012),
    "checks bypassed": (annotated(inference("phi-4", V100), bypass_resource_checks="true"), V012),
    "nodes that are brought along": (inference("phi-4", sku=None), BYO),
    "MIG": (
        with_resource(inference("phi-4", sku=None), partition={"mode": "mig", "profile": "3g.40gb"}),
        Switches(node_auto_provisioning=False, mig=True),
    ),
    "part of a node's GPUs": (
        with_resource(inference("phi-4", sku=None), partition={"mode": "accelerator", "count": 2}),
        Switches(node_auto_provisioning=False, accelerator=True),
    ),
    "image family of the nodes": (annotated(inference("phi-4"), node_image_family="azurelinux"), V012),
    "class of the nodes": (annotated(inference("phi-4"), node_class_name="image-family-ubuntu"), V012),
    "performance mode": (annotated(inference("phi-4"), performance_mode="throughput"), V012),
    "weights on the local disk": (annotated(inference("phi-4"), use_local_weights="true"), V012),
    "no benchmark": (annotated(inference("phi-4"), disable_benchmark="true"), V012),
    "no streaming": (annotated(inference("phi-4"), model_streaming="disabled"), V012),
    "no instance type": (inference(sku=None), DEFAULT),
    "tuning with lora": (tuning(preset={"name": "phi-3-mini-128k-instruct"}, method="lora"), V012),
    "tuning of a newer model": (tuning(preset={"name": "phi-4-mini-instruct"}), V012),
    "tuning from an image": (tuning(input={"image": "example.com/set:1", "imagePullSecrets": ["pull"]}), V012),
    "tuning from and to volumes": (tuning(input={"volumeSource": PVC}, output={"volumeSource": PVC}), V012),
    "tuning with settings": (tuning(config="settings"), V012),
    "tuning of falcon, whose example is stale upstream": (tuning(preset={"name": "falcon-7b"}), DEFAULT),
}


@pytest.mark.acceptance("KS-A20")
@pytest.mark.parametrize("feature", FEATURES)
def test_features_of_the_newer_era(feature: str) -> None:
    """One Workspace per feature is admitted in both versions by that era's own rules, and by ours."""
    obj, switches = FEATURES[feature]

    for version in ("kaito.sh/v1alpha1", BETA):
        assert violations(obj | {"apiVersion": version}, switches) == ""
        if switches is V012:
            assert violations(obj | {"apiVersion": version}) == ""


# ------------------------------------------------------------------ what is worth saying


@pytest.mark.parametrize(
    ("obj", "fragment"),
    [
        (inference("phi-2"), "upstream has retired phi-2"),
        (inference("some-org/phi-4"), "is not in the catalogue"),
        (inference("microsoft/phi-44"), "did you mean microsoft/phi-4?"),
        (inference("llama-3.1-8b-instruct"), "is gated"),
        (inference(sku="Standard_NC24ads_A100_v9"), "did you mean Standard_NC24ads_A100_v4?"),
        (inference(sku="Standard_ND96asr_A100_v4"), "it is called Standard_ND96asr_v4"),
        (inference(sku=V100), "retires Standard_NC6s_v3 on 2025-09-30"),
        (with_resource(inference(), labelSelector={}), "selects every node"),
        (with_resource(inference("phi-4", V100), count=1), "Insufficient total GPU memory"),
        (annotated(inference("falcon-40b", V100), bypass_resource_checks=""), "Insufficient number of GPUs"),
        (annotated(inference(), runtime="sglang"), "is no runtime"),
        (annotated(inference(), enablelb="true"), 'only "True"'),
        (inference() | {"metadata": {"name": "4-phi"}}, "no Service named '4-phi'"),
        (inference(adapters=[adapter(image="example.com/a")]), "has no tag"),
        (inference(adapters=[adapter(imagePullSecrets=["MY_SECRET_HERE"])]), "placeholder 'MY_SECRET_HERE'"),
    ],
)
def test_warned(obj: Obj, fragment: str) -> None:
    """What is admitted and will not work as it may seem is said, in one sentence each."""
    assert violations(obj) == ""
    assert fragment in said(obj)


def test_a_change_that_is_none_is_not_commented() -> None:
    """A controller's write of status, finalizers or its own annotations brings no warnings."""
    old = inference("phi-2", V100)
    new = changed(old, "metadata.annotations", {"workspace.kaito.io/hash": "x"})

    verdict = judge(changed(new, "metadata.finalizers", ["workspace.finalizer.kaito.sh"]), old)

    assert (verdict.violations, verdict.warnings) == ((), ())


def test_depth_and_length_are_answered() -> None:
    """However deep or long an object is, there is a verdict, and it is not long."""
    deep: Any = {}
    for _ in range(900):
        deep = {"a": deep}
    old, new = inference(), changed(inference(), "inference.preset.presetOptions", deep)
    many = inference() | {f"x{n}": 1 for n in range(5000)}
    long = inference("x" * 1_000_000, "Standard_" + "A_" * 500_000)

    assert not judge(new, old).admitted
    assert len(judge(many).violations) == 20
    assert not judge(long).admitted
    assert max(len(str(item)) for item in judge(long).violations) < 400
