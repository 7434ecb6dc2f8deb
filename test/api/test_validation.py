"""What is admitted, what is refused and in which words, and what is warned about."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from api.testing import A100, adapter, changed, inference, tuning, with_resource
from api.validation import validate_create, validate_update, warnings

SAMPLES = sorted((Path(__file__).parents[2] / "config" / "samples").glob("*.yaml"))


def texts(obj: dict[str, Any]) -> str:
    return "\n".join(str(item) for item in validate_create(obj))


# ------------------------------------------------------------------ admitted


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_samples_are_admitted(path: Path) -> None:
    """The four manifests of the project's own description are admitted as they stand."""
    assert validate_create(yaml.safe_load(path.read_text())) == []


@pytest.mark.parametrize(
    "obj",
    [
        inference(),
        inference(sku=None),
        inference("microsoft/phi-4"),
        inference("mistral-7b", "Standard_NC4as_T4_v3"),
        inference("falcon-40b", "Standard_NC96ads_A100_v4"),
        inference("llama-2-7b", "Standard_NC12s_v3")
        | {
            "inference": {
                "preset": {
                    "name": "llama-2-7b",
                    "accessMode": "private",
                    "presetOptions": {"image": "example.com/llama:1"},
                }
            }
        },
        inference(sku="Standard_NX1_v9"),
        inference(sku="Standard_D32s_v5"),
        inference() | {"inference": {"template": {"spec": {"containers": []}}}},
        inference(adapters=[adapter(), adapter(name="two", strength="0")]),
        inference(adapters=[{"source": {"name": "v", "volumeSource": {"emptyDir": {}}}}]),
        tuning(),
        tuning(method="QLoRA"),
        tuning(input={"image": "example.com/data/set:1"}),
        tuning(output={"volumeSource": {"emptyDir": {}}}),
    ],
)
def test_admitted(obj: dict[str, Any]) -> None:
    """Valid workspaces of every sort have nothing wrong with them."""
    assert validate_create(obj) == []


# ------------------------------------------------------------------ refused

REFUSED = {
    "neither": (inference() | {"inference": None}, "Either Inference or Tuning must be specified, not neither"),
    "both": (inference() | {"tuning": tuning()["tuning"]}, "but not both"),
    "no-preset": (inference() | {"inference": {}}, "Preset or Template must be specified"),
    "preset-and-template": (
        inference(template={"spec": {}}),
        "Preset and Template cannot be set at the same time",
    ),
    "unknown-preset": (inference("phi-3-mini-4k-instuct"), "Unsupported inference preset name"),
    "public-llama": (inference("llama-2-7b", "Standard_NC12s_v3"), "AccessMode must be private to continue"),
    "private-without-image": (
        inference() | {"inference": {"preset": {"name": "phi-2", "accessMode": "private"}}},
        "When AccessMode is private, an image must be provided",
    ),
    "eleven-adapters": (
        inference(adapters=[adapter(name=f"a{n}") for n in range(11)]),
        "Number of Adapters exceeds the maximum limit, maximum of 10 allowed",
    ),
    "twin-adapters": (inference(adapters=[adapter(), adapter()]), "Duplicate adapter source name found: one"),
    "adapter-without-name": (inference(adapters=[adapter(name=None)]), "Name of Adapter field must be specified"),
    "adapter-name": (
        inference(adapters=[adapter(name="a_b")]),
        "Name of Adapter must be a valid DNS subdomain value",
    ),
    "adapter-image": (inference(adapters=[adapter(image=None)]), "Image of Adapter field must be specified"),
    "adapter-no-source": (inference(adapters=[{"strength": "1"}]), "Source of Adapter field must be specified"),
    "adapter-urls": (inference(adapters=[adapter(urls=["http://x"])]), "URLs are not supported as adapter source"),
    "adapter-both": (
        inference(adapters=[adapter(volumeSource={"emptyDir": {}})]),
        "Exactly one of Volume or Image",
    ),
    "strength-text": (inference(adapters=[adapter(strength="much")]), "Invalid strength value for Adapter"),
    "strength-two": (inference(adapters=[adapter(strength="2")]), "must be between 0 and 1"),
    "strength-nan": (inference(adapters=[adapter(strength="nan")]), "must be between 0 and 1"),
    "gpus": (inference("falcon-40b", "Standard_NC6s_v3"), "Insufficient number of GPUs"),
    "per-gpu": (
        inference("llama-2-70b", "Standard_NC24s_v3"),
        "Insufficient per GPU memory",
    ),
    "total": (inference("phi-3-medium-4k-instruct", "Standard_NC6s_v3"), "Insufficient total GPU memory"),
    "two-nodes-too-few": (
        with_resource(inference("llama-2-70b", A100), count=2),
        "Insufficient number of GPUs",
    ),
    "bad-sku": (inference(sku="Standard_Bad"), "Unsupported instance"),
    "sku-typo": (inference(sku="Stndard_NC6s_v3"), "did you mean Standard_NC6s_v3?"),
    "selector": (
        with_resource(inference(), labelSelector={"matchExpressions": [{"key": "a", "operator": "Exists"}]}),
        "invalid labelSelector",
    ),
    "count-zero": (with_resource(inference(), count=0), "0 nodes cannot run anything"),
    "count-text": (with_resource(inference(), count="two"), "resource.count"),
    "no-selector": (inference() | {"resource": {}}, "resource.labelSelector"),
    "multinode-tuning": (
        with_resource(tuning(), count=2),
        "Tuning does not currently support multinode configurations",
    ),
    "method": (tuning(method="dora"), "Method 'dora' is not supported"),
    "no-input": (tuning(input=None), "Input must be specified"),
    "no-output": (tuning(output=None), "Output must be specified"),
    "no-tuning-preset": (tuning(preset=None), "Preset must be specified"),
    "tuning-preset": (tuning(preset={"name": "gpt-2"}), "Unsupported tuning preset name"),
    "untunable": (tuning(preset={"name": "falcon-7b-instruct"}), "can be served and not tuned"),
    "input-none": (tuning(input={"name": "x"}), "Exactly one of URLs, Volume, or Image must be specified"),
    "input-two": (
        tuning(input={"urls": ["https://x"], "image": "a/b:1"}),
        "Exactly one of URLs, Volume, or Image must be specified",
    ),
    "input-image": (tuning(input={"image": "nginx"}), "Invalid image format, require full input image URL"),
    "output-image": (
        tuning(output={"image": "example.com/x", "imagePushSecret": "s"}),
        "Invalid image format, require full output image URL",
    ),
    "output-case": (
        tuning(output={"image": "Example.com/x:1", "imagePushSecret": "s"}),
        "the repository must be lower-case",
    ),
    "output-none": (tuning(output={}), "At least one of Volume or Image must be specified"),
    "output-secret": (tuning(output={"image": "a/b:1"}), "Must specify imagePushSecret with destination image"),
    "field-typo": (with_resource(inference(), instancetype="x"), "did you mean instanceType?"),
    "deep-typo": (inference(adapters=[adapter(imagePullSecret="x")]), "did you mean imagePullSecrets?"),
    "spec-block": (inference() | {"spec": {}}, 'unknown field "spec"'),
    "wrong-kind": (inference() | {"kind": "Pod"}, "this is a Pod"),
    "wrong-version": (inference() | {"apiVersion": "kaito.sh/v1"}, "kaito.sh/v1 is not served"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    """Each mistake is refused in upstream's words where tools match on them, and the object is not changed."""
    obj, fragment = REFUSED[name]
    before = copy.deepcopy(obj)

    assert fragment in texts(obj)
    assert obj == before


def test_one_mistake_one_violation() -> None:
    """A single mistake gives a single line, with its path and a hint."""
    found = validate_create(inference("phi-3-mini-4k-instuct"))

    assert [item.path for item in found] == ["inference.preset.name"]
    assert "phi-3-mini-4k-instruct" in found[0].hint


def test_template_and_volumes_are_free_form() -> None:
    """Fields inside a pod template or a volume are not ours to judge."""
    obj = inference() | {"inference": {"template": {"spec": {"anything": {"goes": 1}}}}}

    assert validate_create(obj) == []


# ------------------------------------------------------------------ updates


@pytest.mark.parametrize(
    ("old", "path", "value", "fragment"),
    [
        (inference(), "resource.count", 2, "field is immutable"),
        (inference(), "resource.instanceType", "Standard_NC96ads_A100_v4", "field is immutable"),
        (inference(), "resource.labelSelector", {"matchLabels": {"apps": "y"}}, "field is immutable"),
        (inference(), "inference.preset.name", "phi-2", "field is immutable"),
        (inference(), "inference.template", {"spec": {}}, "field cannot be unset/set if it was set/unset"),
        (inference(), "inference", None, "Inference field cannot be toggled once set"),
        (tuning(), "tuning.preset.name", "phi-2", "Preset cannot be changed"),
        (tuning(), "tuning.method", "lora", "Method cannot be changed"),
        (tuning(), "tuning.input.name", "other", "field is immutable"),
        (tuning(), "tuning.output.image", "nginx", "Invalid image format"),
        (inference(), "inference.adapters", [adapter(strength="9")], "must be between 0 and 1"),
    ],
)
def test_changes_that_are_refused(old: dict[str, Any], path: str, value: Any, fragment: str) -> None:
    """What was decided on creation stays, and what is new must be valid."""
    found = validate_update(old, changed(old, path, value))

    assert fragment in "\n".join(str(item) for item in found)


@pytest.mark.parametrize(
    ("old", "path", "value"),
    [
        (inference(), "inference.adapters", [adapter()]),
        (inference(), "resource.preferredNodes", ["node-1"]),
        (inference(), "resource.count", None),
        (inference(), "inference.preset.accessMode", "public"),
        (inference(), "metadata.labels", {"a": "b"}),
        (tuning(), "tuning.method", "QLORA"),
        (tuning(), "tuning.input.urls", ["https://example.com/b.parquet"]),
        (tuning(), "tuning.output.image", "example.com/adapters/phi:0.0.2"),
    ],
)
def test_changes_that_are_allowed(old: dict[str, Any], path: str, value: Any) -> None:
    """Adapters, preferred nodes, data and output may change; spelling a default is no change."""
    assert validate_update(old, changed(old, path, value)) == []


def test_second_sample_over_the_first_is_the_forbidden_toggle() -> None:
    """An inference workspace cannot become a tuning workspace of the same name."""
    first, second = (yaml.safe_load(path.read_text()) for path in SAMPLES[:2])

    found = "\n".join(str(item) for item in validate_update(first, second))

    assert "Inference field cannot be toggled once set" in found
    assert "Tuning field cannot be toggled once set" in found


def test_an_old_object_can_always_lose_its_finalizer() -> None:
    """Metadata of an object that today's rules refuse may change, and its deletion is never held up."""
    bad = inference("gone-model")
    bad["metadata"]["finalizers"] = ["workspace.finalizer.kaito.sh"]

    assert validate_update(bad, changed(bad, "metadata.finalizers", [])) == []
    deleting = changed(bad, "metadata.deletionTimestamp", "2026-01-01T00:00:00Z")
    assert validate_update(bad, changed(deleting, "resource.count", 5)) == []


def test_old_mistakes_are_not_held_against_a_change() -> None:
    """Adding an adapter to an object whose preset is no longer known is judged by the adapter alone."""
    bad = inference("gone-model")

    assert validate_update(bad, changed(bad, "inference.adapters", [adapter()])) == []
    assert validate_update(bad, changed(bad, "inference.adapters", [adapter(name="a_b")])) != []


# ------------------------------------------------------------------ warnings


def test_old_gpu_is_told() -> None:
    """The V100 of the samples is admitted with what the engine will not do there."""
    text = "\n".join(warnings(yaml.safe_load(SAMPLES[0].read_text())))

    assert "Standard_NC6s_v3 has NVIDIA V100, compute capability 7.0" in text
    assert "no bfloat16" in text
    assert "CUDA 13" in text


def test_placeholders_are_named() -> None:
    """Words that stand for something to fill in are named with their field."""
    text = "\n".join(warnings(yaml.safe_load(SAMPLES[1].read_text())))

    assert "tuning.output.image still holds the placeholder 'ACR_REPO_HERE'" in text
    assert "tuning.output.imagePushSecret still holds the placeholder 'ACR_REGISTRY_SECRET_HERE'" in text


def test_impossible_secret_is_named() -> None:
    """A secret name that no cluster can have is said before the pod hangs on it."""
    obj = inference(adapters=[adapter(imagePullSecrets=["My_Secret"])])

    assert any("no Secret can be named 'My_Secret'" in text for text in warnings(obj))


def test_nothing_to_warn_about() -> None:
    """A current GPU and filled-in names give no warning; an unreadable object gives none either."""
    assert warnings(inference(adapters=[adapter()])) == []
    assert warnings({}) == []
