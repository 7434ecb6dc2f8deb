"""Every admission rule of both eras, row by row: what passes it, what breaks it, and in which words."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

import pytest

from api.testing import A100, adapter, annotated, changed, inference, tuning, with_resource
from api.validation import DEFAULT, V012, V03, Switches, World, judge

Obj = dict[str, Any]
BYO = Switches(node_auto_provisioning=False)


@dataclass(frozen=True)
class Row:
    """One rule. Each of ``passes`` is admitted, each of ``breaks`` is refused with its fragment and path."""

    rule: str
    passes: tuple[Obj, ...]
    breaks: tuple[tuple[Obj, str, str], ...]
    switches: Switches = DEFAULT
    world: World = field(default_factory=World)
    elsewhere: World | None = None  # the world of ``breaks``, where it is another


def private(name: str, sku: str, image: str | None = "example.com/llama:1") -> Obj:
    """A preset whose image the user supplies."""
    preset: Obj = {"name": name, "accessMode": "private"}
    if image:
        preset["presetOptions"] = {"image": image}
    return inference(sku=sku) | {"inference": {"preset": preset}}


def node(product: str = "A100", count: str = "1", memory: str = "81920", **other: str) -> Obj:
    """A node with the labels of NVIDIA's feature discovery; an empty value leaves a label out."""
    labels = {"product": product, "count": count, "memory": memory}
    written = {f"nvidia.com/gpu.{key}": value for key, value in labels.items() if value}
    return {"metadata": {"name": "n", "labels": {**written, **other}}}


def config_map(key: str, text: str) -> World:
    """A world with one ConfigMap, named settings."""
    return World(config_maps={"settings": {"data": {key: text}}})


def engine(text: str) -> World:
    return config_map("inference_config.yaml", text)


def training(text: str) -> World:
    return config_map("training_config.yaml", f"training_config:\n{text}")


def with_label(key: str, value: str = "x") -> Obj:
    return with_resource(inference(), labelSelector={"matchLabels": {key: value}})


def named(name: str) -> Obj:
    return inference() | {"metadata": {"name": name}}


def part(**fields: Any) -> Obj:
    return with_resource(inference(sku=None), partition=fields)


TEMPLATE = {"spec": {"containers": [{"name": "c", "image": "nginx"}]}}
VOLUME = {"persistentVolumeClaim": {"claimName": "data"}}
NOT_IMPLEMENTED = "Volume support is not implemented yet"
FAILED = "Failed to evaluate validateConfigMap"
QLORA = "  QuantizationConfig: {load_in_4bit: true}\n"
LLAMA = "meta-llama/llama-3.1-8b-instruct"


CREATE_V03 = [
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

V012_RULES = [
    Row(
        "name is a DNS label",
        (named("a-1"), named("x" * 63)),
        tuple((named(bad), "DNS-1123 label", "metadata.name") for bad in ("a.b", "A", "x" * 64, "-a")),
    ),
    Row(
        "instanceType is required where nodes are made",
        (inference(sku="Standard_NC24ads_A100_v4"),),
        ((inference(sku=None), "instanceType is required", "resource.instanceType"),),
        V012,
    ),
    Row(
        "instanceType is empty where they are not",
        (inference(sku=None),),
        ((inference(), "instanceType must be empty", "resource.instanceType"),),
        BYO,
    ),
    Row(
        "unknown types on azure alone",
        (inference(sku="p4d.24xlarge"),),
        ((inference(sku="Standard_NX1_v9"), "Unsupported instance", "resource.instanceType"),),
        Switches(cloud="aws"),
    ),
    *(
        Row(
            f"annotation {name}",
            (annotated(inference(), **{name: good}),),
            (
                (
                    annotated(inference(), **{name: bad}),
                    "is not a value of this annotation",
                    f"metadata.annotations[kaito.sh/{name.replace('_', '-')}]",
                ),
            ),
            switches,
        )
        for name, good, bad, switches in [
            ("node_image_family", "azurelinux", "windows", DEFAULT),
            ("performance_mode", "throughput", "fast", DEFAULT),
            ("use_local_weights", "true", "yes", DEFAULT),
            ("node_class_name", "image-family-ubuntu", "other", Switches(node_classes=("image-family-ubuntu",))),
        ]
    ),
    Row(
        "a label of one's own",
        (with_label("apps"), with_label("example.com/kaito.sh")),
        (
            (
                with_label("kaito.sh/workspace"),
                "matchLabels must contain at least one non-reserved label",
                "resource.labelSelector",
            ),
            (
                with_label("karpenter.kaito.sh/workspace-name"),
                "at least one non-reserved label",
                "resource.labelSelector",
            ),
        ),
        V012,
    ),
    Row(
        "presets by name, alias or id of the hub",
        (inference("phi-4"), inference("microsoft/phi-4"), inference("some-org/Some.Model-7B")),
        (
            (inference("org/model/x"), "Unsupported inference preset name", "inference.preset.name"),
            (inference("some-model"), "Unsupported inference preset name", "inference.preset.name"),
        ),
        V012,
    ),
    Row(
        "retired presets",
        (inference("mistral-7b"),),
        ((inference("phi-2"), "Model phi-2 is deprecated and no longer supported", "inference.preset.name"),),
        V012,
    ),
    Row(
        "token of the hub",
        (
            inference() | {"inference": {"preset": {"name": LLAMA, "presetOptions": {"modelAccessSecret": "t"}}}},
            inference("phi-4"),
        ),
        (
            (
                inference(LLAMA),
                "modelAccessSecret is required",
                "inference.preset.presetOptions.modelAccessSecret",
            ),
            (
                inference()
                | {"inference": {"preset": {"name": "falcon-7b", "presetOptions": {"modelAccessSecret": "t"}}}},
                "its image has the weights",
                "inference.preset.presetOptions.modelAccessSecret",
            ),
        ),
        V012,
    ),
    Row(
        "strength is for transformers",
        (
            annotated(inference(adapters=[adapter(strength="0.5")]), runtime="transformers"),
            inference(adapters=[adapter()]),
        ),
        (
            (
                inference(adapters=[adapter(strength="0.5")]),
                "vLLM does not support adapter strength",
                "inference.adapters[0].strength",
            ),
        ),
        V012,
    ),
    Row(
        "transformers knows the preset",
        (annotated(inference("phi-4"), runtime="transformers"),),
        (
            (
                annotated(inference("qwen/qwen3-8b-awq"), runtime="transformers"),
                "not supported by the transformers runtime",
                "inference.preset.name",
            ),
        ),
    ),
    Row(
        "transformers has one node",
        (with_resource(annotated(inference("phi-4"), runtime="transformers"), count=1),),
        (
            (
                with_resource(annotated(inference("phi-4"), runtime="transformers"), count=2),
                "multi-node",
                "resource.count",
            ),
        ),
    ),
    Row(
        "memory on nodes that are brought along",
        (
            inference("phi-4", sku=None),
            annotated(inference("llama-3.3-70b-instruct", sku=None), bypass_resource_checks="true"),
        ),
        (
            (
                inference("llama-3.3-70b-instruct", sku=None),
                "Insufficient total GPU memory",
                "resource.labelSelector",
            ),
        ),
        BYO,
        World(nodes=(node(),)),
    ),
    Row(
        "memory with transformers",
        (
            annotated(inference("phi-4"), runtime="transformers"),
            with_resource(
                annotated(
                    inference("phi-4", "Standard_NC6s_v3"), runtime="transformers", bypass_resource_checks=""
                ),
                count=1,
            ),
        ),
        (
            (
                with_resource(annotated(inference("phi-4", "Standard_NC6s_v3"), runtime="transformers"), count=1),
                "Insufficient total GPU memory",
                "resource.instanceType",
            ),
        ),
    ),
    *(
        Row(
            f"nodes that are brought along: {name}",
            (inference("phi-4", sku=None),),
            ((inference("phi-4", sku=None), fragment, "resource.labelSelector"),),
            BYO,
            World(nodes=(node(), node())),
            World(nodes=bad),
        )
        for name, bad, fragment in [
            ("there are any", (), "No nodes found matching the specified label selector"),
            ("with a product", (node(product=""),), "Failed to get GPU config from nvidia labels"),
            ("with a count", (node(count=""),), "Failed to get GPU config from nvidia labels"),
            ("with memory", (node(memory="much"),), "Failed to get GPU config from nvidia labels"),
            ("of one product", (node(), node("H100")), "Non-uniform GPU product"),
            ("of one count", (node(), node(count="2")), "Non-uniform GPU count"),
        ]
    ),
    Row(
        "partition is for nodes that are brought along",
        (inference(),),
        (
            (
                part(mode="mig", profile="3g.40gb"),
                "partition needs nodes that are brought along",
                "resource.partition",
            ),
        ),
        Switches(mig=True),
    ),
    Row(
        "partition by MIG",
        (part(mode="mig", profile="3g.40gb"),),
        (
            (part(mode="mig"), "profile is required", "resource.partition.profile"),
            (part(mode="mig", profile="1g.10gb+me"), "unknown MIG profile", "resource.partition.profile"),
            (part(mode="mig", profile="3g.40gb", count=1), "accelerator only", "resource.partition.count"),
            (
                changed(part(mode="mig", profile="1g.10gb"), "inference.preset.name", "phi-4"),
                "exceeds the 1g.10gb MIG slice",
                "resource.partition.profile",
            ),
            (
                part(mode="accelerator", count=1),
                "partition mode accelerator is disabled",
                "resource.partition.mode",
            ),
            (
                tuning() | {"resource": part(mode="mig", profile="3g.40gb")["resource"]},
                "not supported for tuning",
                "resource.partition",
            ),
        ),
        Switches(node_auto_provisioning=False, mig=True),
    ),
    Row(
        "partition by count",
        (part(mode="accelerator", count=2),),
        (
            (part(mode="accelerator"), "count must be 1 or more", "resource.partition.count"),
            (part(mode="accelerator", count=1, profile="3g.40gb"), "mode mig only", "resource.partition.profile"),
            (part(mode="mig", profile="3g.40gb"), "partition mode mig is disabled", "resource.partition.mode"),
        ),
        Switches(node_auto_provisioning=False, accelerator=True),
    ),
    *(
        Row(
            f"inference settings: {name}",
            (inference("phi-3-mini-4k-instruct", config="settings"),),
            ((inference("phi-3-mini-4k-instruct", config="settings"), fragment, "inference.config"),),
            world=engine("vllm: {max-model-len: 4096, dtype: half}"),
            elsewhere=bad,
        )
        for name, bad, fragment in [
            ("there are any", World(config_maps={"settings": None}), "does not exist"),
            ("under their key", config_map("other.yaml", "a: 1"), "has no key inference_config.yaml"),
            ("are YAML", engine("vllm: ["), "is not YAML"),
            ("are a mapping", engine("vllm: 1"), "is not a mapping"),
            ("are scalars", engine("vllm: {a: {b: 1}}"), "is not a scalar"),
            ("length is a number", engine("vllm: {max-model-len: much}"), "not a whole number"),
            (
                "length is possible",
                engine("vllm: {max-model-len: 20480}"),
                "max-model-len 20480 exceeds model's maximum supported context window 4096 (ModelTokenLimit)",
            ),
        ]
    ),
    Row(
        "streaming has its driver",
        (inference(), annotated(inference(), model_streaming="disabled")),
        ((inference(), "blob.csi.azure.com", "metadata.annotations[kaito.sh/model-streaming]"),),
        Switches(model_streaming=True),
        World(csi_drivers=frozenset({"blob.csi.azure.com"})),
        World(csi_drivers=frozenset()),
    ),
    Row(
        "adapter from an image or a volume",
        (
            inference(adapters=[{"source": {"name": "v", "volumeSource": VOLUME}}]),
            inference(adapters=[adapter(image="nginx")]),
        ),
        (
            (
                inference(adapters=[adapter(image=None)]),
                "Either Image or Volume must be specified for adapter source",
                "inference.adapters[0].source.image",
            ),
            (
                inference(adapters=[adapter(urls=["https://x.org"])]),
                "URLs are not supported as adapter source",
                "inference.adapters[0].source.urls",
            ),
            (
                inference(adapters=[adapter(volumeSource=VOLUME)]),
                "Exactly one of Volume or Image",
                "inference.adapters[0].source",
            ),
            (
                inference(adapters=[adapter(image="a/b:c:d")]),
                "Invalid image format",
                "inference.adapters[0].source.image",
            ),
        ),
    ),
    Row(
        "adapter volumes were rejected",
        (inference(adapters=[adapter()]),),
        (
            (
                inference(adapters=[{"source": {"name": "v", "volumeSource": VOLUME}}]),
                NOT_IMPLEMENTED,
                "inference.adapters[0].source.volumeSource",
            ),
        ),
        V03,
    ),
    Row(
        "data on volumes",
        (tuning(input={"volumeSource": VOLUME}), tuning(output={"volumeSource": VOLUME})),
        (
            (
                tuning(output={"volumeSource": VOLUME, "image": "a/b:1", "imagePushSecret": "s"}),
                "Exactly one of Volume or Image must be specified",
                "tuning.output",
            ),
        ),
        Switches(output_both=False),
    ),
    Row(
        "URLs are http and public",
        (
            tuning(
                input={
                    "urls": ["http://example.com/a", "https://93.184.216.34/b", "https://[2606:2800:220:1::1]/c"]
                }
            ),
        ),
        tuple(
            (tuning(input={"urls": [url]}), "Invalid URL", "tuning.input.urls[0]")
            for url in (
                "ftp://example.com/a",
                "file:///etc/passwd",
                "example.com/a",
                "https://",
                "http://localhost/a",
                "http://LOCALHOST./a",
                "http://a.localhost/a",
                "http://metadata.google.internal/",
                "http://169.254.169.254/latest",
                "http://168.63.129.16/",
                "http://127.0.0.1/",
                "http://127.1/",
                "http://2130706433/",
                "http://0x7f000001/",
                "http://[::1]/",
                "http://[::ffff:127.0.0.1]/",
                "http://10.0.0.1/",
                "http://192.168.1.1/",
                "http://172.16.0.1/",
                "http://100.64.0.1/",
                "http://[fd00:ec2::254]/",
                "http://0.0.0.0/",
                "http://[::1/",
                "http://user:pass@127.0.0.1/",
                "http://x:99999/",
            )
        ),
    ),
    Row(
        "private URLs, where they are allowed",
        (tuning(input={"urls": ["http://127.0.0.1:8000/a.parquet"]}),),
        ((tuning(input={"urls": ["ftp://127.0.0.1/a"]}), "Invalid URL", "tuning.input.urls[0]"),),
        Switches(private_urls=True),
    ),
]

CASES = [
    pytest.param(era, row, id=f"{era}-{row.rule}")
    for era, rows in (("v0.3", CREATE_V03), ("v0.12", V012_RULES))
    for row in rows
]


@pytest.mark.acceptance("KS-A11")
@pytest.mark.parametrize(("era", "row"), CASES)
def test_rule_on_creation(era: str, row: Row) -> None:
    """What keeps a rule is admitted; what breaks it is refused in upstream's words, at the field."""
    for obj in row.passes:
        assert judge(obj, switches=row.switches, world=row.world).violations == (), obj
    for obj, fragment, path in row.breaks:
        before = copy.deepcopy(obj)
        verdict = judge(obj, switches=row.switches, world=row.elsewhere or row.world)
        found = {(item.path, str(item)) for item in verdict.violations}
        assert any(fragment in text and (where == path or not path) for where, text in found), (fragment, found)
        assert all(item.hint for item in verdict.violations), found
        assert verdict.warnings == ()
        assert obj == before


@pytest.mark.acceptance("KS-A11")
def test_instance_types_in_any_case() -> None:
    """The newer era takes an instance type in any case, with a word about it; the older one wants it exact."""
    obj = inference(sku="standard_nc24ADS_a100_V4")

    verdict = judge(obj)
    strict = judge(obj, switches=V03)

    assert verdict.admitted
    assert any("is taken as Standard_NC24ads_A100_v4" in text for text in verdict.warnings)
    assert [item.hint for item in strict.violations] == [f"write {A100}"]


# ------------------------------------------------------------------ changes

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
