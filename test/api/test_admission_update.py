"""The admission rules for changes: what was decided stays, the rest may change."""

from __future__ import annotations

from typing import Any

import pytest

from api.testing import adapter, changed, inference, tuning, with_resource
from api.testing.rows import BYO, part
from api.validation import DEFAULT, Switches, judge

Obj = dict[str, Any]

TEMPLATE = {"spec": {"containers": [{"name": "c", "image": "nginx"}]}}
QLORA = "  QuantizationConfig: {load_in_4bit: true}\n"


IMMUTABLE = "field is immutable"
WITH_ADAPTER = inference(adapters=[adapter()])
WITH_TEMPLATE = inference() | {"inference": {"template": TEMPLATE}}
NAMED_INPUT = tuning(input={"name": "set", "urls": ["https://example.com/a"]})

UPDATE_BREAKS = [
    (
        "inference is not toggled",
        inference(),
        "inference",
        None,
        "Inference field cannot be toggled once set",
        DEFAULT,
    ),
    (
        "tuning is not toggled",
        inference(),
        "tuning",
        tuning()["tuning"],
        "Tuning field cannot be toggled once set",
        DEFAULT,
    ),
    ("count", with_resource(inference(), count=1), "resource.count", 2, IMMUTABLE, DEFAULT),
    ("count is not unset", with_resource(inference(), count=1), "resource.count", None, IMMUTABLE, DEFAULT),
    ("instanceType", inference(), "resource.instanceType", "Standard_NC96ads_A100_v4", IMMUTABLE, DEFAULT),
    ("instanceType is not cleared", inference(), "resource.instanceType", None, IMMUTABLE, DEFAULT),
    ("labelSelector", inference(), "resource.labelSelector", {"matchLabels": {"apps": "y"}}, IMMUTABLE, DEFAULT),
    (
        "partition",
        part(mode="mig", profile="3g.40gb"),
        "resource.partition.profile",
        "7g.80gb",
        IMMUTABLE,
        DEFAULT,
    ),
    ("preset", inference(), "inference.preset.name", "phi-2", IMMUTABLE, DEFAULT),
    ("preset options", inference(), "inference.preset.presetOptions", {"image": "a/b:1"}, IMMUTABLE, DEFAULT),
    (
        "template does not appear",
        inference(),
        "inference.template",
        TEMPLATE,
        "field cannot be unset/set if it was set/unset",
        DEFAULT,
    ),
    (
        "template does not go",
        WITH_TEMPLATE,
        "inference.template",
        None,
        "field cannot be unset/set if it was set/unset",
        DEFAULT,
    ),
    (
        "adapters stay valid",
        WITH_ADAPTER,
        "inference.adapters",
        [adapter(strength="9")],
        "must be between 0 and 1",
        DEFAULT,
    ),
    (
        "adapters stay unique",
        WITH_ADAPTER,
        "inference.adapters",
        [adapter(), adapter()],
        "Duplicate adapter source name found:",
        DEFAULT,
    ),
    ("tuning preset", tuning(), "tuning.preset.name", "phi-2", "Preset cannot be changed", DEFAULT),
    ("method", tuning(), "tuning.method", "lora", "Method cannot be changed", DEFAULT),
    ("input name", NAMED_INPUT, "tuning.input.name", "other", IMMUTABLE, DEFAULT),
    ("input stays valid", tuning(), "tuning.input", {"image": "nginx"}, "Invalid image format", DEFAULT),
    ("output stays valid", tuning(), "tuning.output.image", "nginx", "Invalid image format", DEFAULT),
    (
        "input as in v0.3.0",
        tuning(),
        "tuning.input.urls",
        ["https://example.com/b"],
        "Input cannot be changed",
        Switches(fixed_tuning_data=True),
    ),
    (
        "output as in v0.3.0",
        tuning(),
        "tuning.output.image",
        "example.com/b:2",
        "Output cannot be changed",
        Switches(fixed_tuning_data=True),
    ),
    (
        "streaming annotation",
        inference(),
        "metadata.annotations",
        {"kaito.sh/model-streaming": "disabled"},
        IMMUTABLE,
        DEFAULT,
    ),
    (
        "annotation values",
        inference(),
        "metadata.annotations",
        {"kaito.sh/performance-mode": "fast"},
        "is not a value",
        DEFAULT,
    ),
]

UPDATE_PASSES = [
    ("adapters", inference(), "inference.adapters", [adapter()], DEFAULT),
    ("adapters go", WITH_ADAPTER, "inference.adapters", None, DEFAULT),
    (
        "template content",
        WITH_TEMPLATE,
        "inference.template.spec.containers",
        [{"name": "c", "image": "nginx:2"}],
        DEFAULT,
    ),
    ("preferredNodes", inference(), "resource.preferredNodes", ["node-1"], DEFAULT),
    ("accessMode spelled out", inference(), "inference.preset.accessMode", "public", DEFAULT),
    ("method in another case", tuning(), "tuning.method", "QLORA", DEFAULT),
    ("input", tuning(), "tuning.input.urls", ["https://example.com/b.parquet"], DEFAULT),
    ("input of another sort", NAMED_INPUT, "tuning.input", {"name": "set", "image": "a/b:1"}, DEFAULT),
    ("output", tuning(), "tuning.output.image", "example.com/adapters/phi:0.0.2", DEFAULT),
    ("config", inference(), "inference.config", "settings", DEFAULT),
    ("instanceType cleared where nodes are brought along", inference(), "resource.instanceType", None, BYO),
    ("labels", inference(), "metadata.labels", {"a": "b"}, DEFAULT),
    ("annotation", inference(), "metadata.annotations", {"kaito.sh/performance-mode": "balanced"}, DEFAULT),
]


@pytest.mark.acceptance("KS-A11", "KS-A12")
@pytest.mark.parametrize(
    ("old", "path", "value", "fragment", "switches"), [pytest.param(*row[1:], id=row[0]) for row in UPDATE_BREAKS]
)
def test_change_that_is_refused(old: Obj, path: str, value: Any, fragment: str, switches: Switches) -> None:
    """What was decided on creation stays, and what is new must be valid; each refusal says what to do instead."""
    verdict = judge(changed(old, path, value), old, switches=switches)

    assert fragment in "\n".join(map(str, verdict.violations))
    assert all(item.hint and item.path for item in verdict.violations)


@pytest.mark.acceptance("KS-A11", "KS-A12")
@pytest.mark.parametrize(
    ("old", "path", "value", "switches"), [pytest.param(*row[1:], id=row[0]) for row in UPDATE_PASSES]
)
def test_change_that_is_allowed(old: Obj, path: str, value: Any, switches: Switches) -> None:
    """Adapters, preferred nodes, data, output and settings may change; spelling a default is no change."""
    assert judge(changed(old, path, value), old, switches=switches).violations == ()
