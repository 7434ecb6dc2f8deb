"""The admission rules that v0.12 added or changed, row by row."""

from __future__ import annotations

from typing import Any

import pytest

from api.testing import A100, adapter, annotated, changed, inference, tuning, with_resource
from api.testing.rows import BYO, Row, check, config_map, engine, named, node, part, with_label
from api.validation import DEFAULT, V012, V03, Switches, World, judge

Obj = dict[str, Any]

VOLUME = {"persistentVolumeClaim": {"claimName": "data"}}
NOT_IMPLEMENTED = "Volume support is not implemented yet"
LLAMA = "meta-llama/llama-3.1-8b-instruct"


RULES = [
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


@pytest.mark.acceptance("KS-A11")
@pytest.mark.parametrize("row", RULES, ids=lambda row: row.rule)
def test_rule_on_creation(row: Row) -> None:
    """What keeps a rule is admitted; what breaks it is refused in upstream's words, at the field."""
    check(row)


@pytest.mark.acceptance("KS-A11")
def test_instance_types_in_any_case() -> None:
    """The newer era takes an instance type in any case, with a word about it; the older one wants it exact."""
    obj = inference(sku="standard_nc24ADS_a100_V4")

    verdict = judge(obj)
    strict = judge(obj, switches=V03)

    assert verdict.admitted
    assert any("is taken as Standard_NC24ads_A100_v4" in text for text in verdict.warnings)
    assert [item.hint for item in strict.violations] == [f"write {A100}"]
