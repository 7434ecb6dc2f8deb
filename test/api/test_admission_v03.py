"""The admission rules of v0.3, row by row: what passes them, what breaks them, and in which words."""

from __future__ import annotations

from typing import Any

import pytest

from api.testing import A100, adapter, changed, inference, tuning, with_resource
from api.testing.rows import Row, check, config_map, private, training, with_label
from api.validation import V03, World

Obj = dict[str, Any]

TEMPLATE = {"spec": {"containers": [{"name": "c", "image": "nginx"}]}}
VOLUME = {"persistentVolumeClaim": {"claimName": "data"}}
NOT_IMPLEMENTED = "Volume support is not implemented yet"
FAILED = "Failed to evaluate validateConfigMap"
QLORA = "  QuantizationConfig: {load_in_4bit: true}\n"


RULES = [
    Row(
        "1 exactly one of inference and tuning",
        (inference(), tuning()),
        (
            (
                changed(inference(), "inference", None),
                "Either Inference or Tuning must be specified, not neither",
                "",
            ),
            (
                inference() | {"tuning": tuning()["tuning"]},
                "Either Inference or Tuning must be specified, but not both",
                "",
            ),
        ),
    ),
    Row(
        "2 preset or template",
        (inference(), inference() | {"inference": {"template": TEMPLATE}}),
        (
            (inference() | {"inference": {}}, "Preset or Template must be specified", "inference"),
            (inference(template=TEMPLATE), "Preset and Template cannot be set at the same time", "inference"),
        ),
    ),
    Row(
        "3 preset registered",
        (inference("mistral-7b"),),
        (
            (inference("Invalid-Preset-Name"), "Unsupported inference preset name", "inference.preset.name"),
            (inference("phi-3-mini-4k-instuct"), "did you mean phi-3-mini-4k-instruct", "inference.preset.name"),
            (inference(""), "Unsupported inference preset name", "inference.preset.name"),
        ),
    ),
    Row(
        "4 private preset needs private access",
        (private("llama-2-7b", "Standard_NC12s_v3"),),
        (
            (
                inference("llama-2-7b", "Standard_NC12s_v3"),
                "This preset only supports private AccessMode, AccessMode must be private to continue",
                "inference.preset.accessMode",
            ),
        ),
    ),
    Row(
        "5 private access needs an image",
        (private("phi-2", A100),),
        (
            (
                private("phi-2", A100, image=None),
                "When AccessMode is private, an image must be provided",
                "inference.preset.presetOptions.image",
            ),
        ),
    ),
    Row(
        "6 at most ten adapters",
        (inference(adapters=[adapter(name=f"a{n}") for n in range(10)]),),
        (
            (
                inference(adapters=[adapter(name=f"a{n}") for n in range(11)]),
                "Number of Adapters exceeds the maximum limit, maximum of 10 allowed",
                "inference.adapters",
            ),
        ),
    ),
    Row(
        "7 adapter names are unique",
        (inference(adapters=[adapter(), adapter(name="two")]),),
        (
            (
                inference(adapters=[adapter(), adapter()]),
                "Duplicate adapter source name found:",
                "inference.adapters[1].source.name",
            ),
        ),
    ),
    Row(
        "8 adapter: source, name, image, strength",
        (
            inference(adapters=[adapter(name="A-1", strength="0"), adapter(name="b", strength="1.0")]),
            inference(adapters=[adapter(name="x" * 253, strength="5e-1")]),
        ),
        (
            (
                inference(adapters=[{}]),
                "Source of Adapter field must be specified",
                "inference.adapters[0].source",
            ),
            (
                inference(adapters=[adapter(name=None)]),
                "Name of Adapter field must be specified",
                "inference.adapters[0].source.name",
            ),
            (
                inference(adapters=[adapter(name="a_b")]),
                "Name of Adapter must be a valid DNS subdomain value",
                "inference.adapters[0].source.name",
            ),
            (
                inference(adapters=[adapter(name="x" * 254)]),
                "Name of Adapter must be a valid DNS subdomain value",
                "inference.adapters[0].source.name",
            ),
            (
                inference(adapters=[adapter(image=None)]),
                "Image of Adapter field must be specified",
                "inference.adapters[0].source.image",
            ),
            (
                inference(adapters=[adapter(strength="invalid")]),
                "Invalid strength value for Adapter",
                "inference.adapters[0].strength",
            ),
            (
                inference(adapters=[adapter(strength="1.5")]),
                "must be between 0 and 1",
                "inference.adapters[0].strength",
            ),
            (
                inference(adapters=[adapter(strength="-0.1")]),
                "must be between 0 and 1",
                "inference.adapters[0].strength",
            ),
            (
                inference(adapters=[adapter(strength="nan")]),
                "must be between 0 and 1",
                "inference.adapters[0].strength",
            ),
            (
                inference(adapters=[adapter(strength="1_0")]),
                "Invalid strength value for Adapter",
                "inference.adapters[0].strength",
            ),
        ),
    ),
    Row(
        "9 number of GPUs",
        (
            inference("falcon-40b", "Standard_NC96ads_A100_v4"),
            with_resource(private("llama-2-70b", "Standard_NC96ads_A100_v4"), count=2),
        ),
        (
            (inference("falcon-40b", "Standard_NC6s_v3"), "Insufficient number of GPUs", "resource.instanceType"),
            (
                with_resource(private("llama-2-70b", A100), count=2),
                "Insufficient number of GPUs",
                "resource.instanceType",
            ),
        ),
    ),
    Row(
        "10 memory of each GPU",
        (private("llama-2-13b", "Standard_NC12s_v3"),),
        (
            (
                with_resource(private("llama-2-70b", "Standard_NC24s_v3"), count=4),
                "Insufficient per GPU memory",
                "resource.instanceType",
            ),
        ),
    ),
    Row(
        "11 memory of all GPUs",
        (inference("mistral-7b", "Standard_NC4as_T4_v3"),),
        (
            (
                inference("phi-3-medium-4k-instruct", "Standard_NC6s_v3"),
                "Insufficient total GPU memory",
                "resource.instanceType",
            ),
        ),
    ),
    Row(
        "12 unknown instance types",
        (inference(sku="Standard_NX99_v9"), inference(sku="Standard_D32s_v5")),
        (
            (inference(sku="Standard_Bad"), "Unsupported instance", "resource.instanceType"),
            (inference(sku="standard_nx99_v9"), "Unsupported instance", "resource.instanceType"),
            (inference(sku="Stndard_NC6s_v3"), "did you mean Standard_NC6s_v3?", "resource.instanceType"),
        ),
    ),
    Row(
        "13 label selector is a plain map",
        (
            with_resource(
                inference(), labelSelector={"matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}]}
            ),
        ),
        (
            (
                with_resource(
                    inference(), labelSelector={"matchExpressions": [{"key": "a", "operator": "Exists"}]}
                ),
                "invalid labelSelector",
                "resource.labelSelector",
            ),
            (with_label("a", "not a value"), "invalid labelSelector", "resource.labelSelector"),
            (with_label("/a"), "invalid labelSelector", "resource.labelSelector"),
        ),
    ),
    Row(
        "14 tuning has one node",
        (with_resource(tuning(), count=1),),
        (
            (
                with_resource(tuning(), count=2),
                "Tuning does not currently support multinode configurations",
                "resource.count",
            ),
        ),
    ),
    Row(
        "15 method",
        (tuning(method="lora"), tuning(method="QLoRA")),
        ((tuning(method="dora"), "Method", "tuning.method"), (tuning(method=None), "Method", "tuning.method")),
    ),
    Row(
        "16 tuning has input, output and a preset that is registered",
        (tuning(preset={"name": "falcon-7b"}),),
        (
            (tuning(input=None), "Input", "tuning.input"),
            (tuning(output=None), "Output", "tuning.output"),
            (tuning(preset=None), "Preset", "tuning.preset"),
            (tuning(preset={"name": "gpt-2"}), "Unsupported tuning preset name", "tuning.preset.name"),
            (tuning(preset={"name": "llama-2-7b"}), "Unsupported tuning preset name", "tuning.preset.name"),
        ),
    ),
    Row(
        "17 input is one place, no volume",
        (tuning(input={"urls": ["https://x.org/a"]}), tuning(input={"image": "example.com/set:1"})),
        (
            (tuning(input={}), "Exactly one of URLs, Volume, or Image must be specified", "tuning.input"),
            (
                tuning(input={"urls": ["https://x.org/a"], "image": "a/b:1"}),
                "Exactly one of URLs, Volume, or Image must be specified",
                "tuning.input",
            ),
            (tuning(input={"volumeSource": VOLUME}), NOT_IMPLEMENTED, "tuning.input.volumeSource"),
        ),
        V03,
    ),
    Row(
        "18 images have host, tag and a lower-case repository",
        (tuning(input={"image": "host:5000/a/b:1"}), tuning(input={"image": f"a/b@sha256:{'0' * 64}"})),
        (
            (
                tuning(input={"image": "nginx"}),
                "Invalid image format, require full input image URL",
                "tuning.input.image",
            ),
            (
                tuning(input={"image": "a/b"}),
                "Invalid image format, require full input image URL",
                "tuning.input.image",
            ),
            (tuning(input={"image": "a/B:1"}), "lower-case", "tuning.input.image"),
            (
                tuning(output={"image": "a/b:", "imagePushSecret": "s"}),
                "Invalid image format, require full output image URL",
                "tuning.output.image",
            ),
            (tuning(output={"image": "A/b:1", "imagePushSecret": "s"}), "lower-case", "tuning.output.image"),
        ),
    ),
    Row(
        "19 output is a place, and a pushed image has its secret",
        (tuning(),),
        (
            (tuning(output={}), "At least one of Volume or Image must be specified", "tuning.output"),
            (
                tuning(output={"image": "a/b:1"}),
                "Must specify imagePushSecret with destination image",
                "tuning.output.imagePushSecret",
            ),
            (tuning(output={"volumeSource": VOLUME}), NOT_IMPLEMENTED, "tuning.output.volumeSource"),
        ),
        V03,
    ),
    *(
        Row(
            f"20 tuning settings: {name}",
            (tuning(config="settings", method=method),),
            ((tuning(config="settings", method=method), FAILED, "tuning.config"),),
            world=training(good),
            elsewhere=bad,
        )
        for name, method, good, bad in [
            ("there are any", "qlora", QLORA, World(config_maps={"settings": None})),
            ("under their key", "qlora", QLORA, config_map("other.yaml", "a: 1")),
            ("are YAML", "qlora", QLORA, training("  a: [")),
            ("have a root", "qlora", QLORA, config_map("training_config.yaml", "other: {}")),
            (
                "known sections",
                "qlora",
                QLORA + "  LoraConfig: {r: 8}\n",
                training(QLORA + "  LoarConfig: {r: 8}\n"),
            ),
            ("bits are booleans", "qlora", QLORA, training("  QuantizationConfig: {load_in_4bit: 'yes'}\n")),
            (
                "not both bits",
                "qlora",
                QLORA,
                training("  QuantizationConfig: {load_in_4bit: true, load_in_8bit: true}\n"),
            ),
            ("lora has no bits", "lora", "  ModelConfig: {}\n", training(QLORA)),
            ("qlora has bits", "qlora", QLORA, training("  QuantizationConfig: {load_in_4bit: false}\n")),
            ("qlora has the section", "qlora", QLORA, training("  ModelConfig: {}\n")),
            (
                "output below /mnt",
                "qlora",
                QLORA + "  TrainingArguments: {output_dir: /mnt/results}\n",
                training(QLORA + "  TrainingArguments: {output_dir: /mnt}\n"),
            ),
            (
                "output not beside /mnt",
                "qlora",
                QLORA,
                training(QLORA + "  TrainingArguments: {output_dir: /mnt/../etc}\n"),
            ),
            ("output is text", "qlora", QLORA, training(QLORA + "  TrainingArguments: {output_dir: 1}\n")),
        ]
    ),
]


@pytest.mark.acceptance("KS-A11")
@pytest.mark.parametrize("row", RULES, ids=lambda row: row.rule)
def test_rule_on_creation(row: Row) -> None:
    """What keeps a rule is admitted; what breaks it is refused in upstream's words, at the field."""
    check(row)
