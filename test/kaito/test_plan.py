"""``kaito plan``: what a manifest becomes, what it costs, and what will not work; the operator's own decisions."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from api.sizing import PriceBook, Wish, packaged_prices
from kaito.errors import CliError
from kaito.plan import Around, Severity, Verdict, exit_code, judge
from kaito.plan.render import render, summary
from kaito.plan.run import Request, run

ROOT = Path(__file__).parents[2]
SEED_DAY = datetime(2024, 7, 11, tzinfo=UTC)
NOW = datetime(2026, 11, 1, tzinfo=UTC)


def workspace(preset: str, instance_type: str | None = None, **more: Any) -> dict[str, Any]:
    resource = {"labelSelector": {"matchLabels": {"apps": "x"}}, "instanceType": instance_type}
    resource |= {"count": more.pop("count", None)}
    spec: dict[str, Any] = {"name": preset, **more.pop("spec", {})}
    return {
        "apiVersion": "kaito.sh/v1alpha1",
        "kind": "Workspace",
        "metadata": {"name": "ws"},
        "resource": {key: value for key, value in resource.items() if value is not None},
        "inference": {"preset": spec, **more},
    }


def plan(obj: dict[str, Any], *beside: dict[str, Any], now: datetime = NOW, **around: Any) -> Verdict:
    return judge(obj, beside, Around(now=now, prices=packaged_prices(), **around))


def codes(verdict: Verdict, *severities: Severity) -> list[str]:
    return [item.code for item in verdict.findings if not severities or item.severity in severities]


def told(verdict: Verdict, code: str) -> str:
    return next(f"{item.message} | {item.next}" for item in verdict.findings if item.code == code)


def body(verdict: Verdict, kind: str) -> dict[str, Any]:
    return next(step.body for step in verdict.steps if step.kind == kind and step.body is not None)


def seed(number: int) -> dict[str, Any]:
    path = next((ROOT / "config" / "samples").glob(f"{number}-*.yaml"))
    return dict(yaml.safe_load(path.read_text()))


# ------------------------------------------------------------------------------ the seed


@pytest.mark.acceptance("KS-A01")
def test_the_seeds_first_manifest_in_its_day() -> None:
    """One Machine with type, disk and taint, then the Service, then the Deployment with one GPU; it works."""
    verdict = plan(seed(1), now=SEED_DAY)

    assert [f"{step.verb} {step.kind}" for step in verdict.steps] == [
        "hold Workspace",
        "create Machine",
        "label Node",
        "apply ControllerRevision",
        "note Workspace",
        "apply ConfigMap",
        "apply Service",
        "apply Deployment",
    ]
    machine, service, deployment = (body(verdict, kind) for kind in ("Machine", "Service", "Deployment"))
    assert machine["spec"]["resources"]["requests"] == {"storage": "50Gi"}
    assert machine["spec"]["taints"] == [{"key": "sku", "value": "gpu", "effect": "NoSchedule"}]
    assert machine["spec"]["requirements"][0]["values"] == ["Standard_NC6s_v3"]
    assert (service["spec"]["ports"][0]["port"], service["spec"]["ports"][0]["targetPort"]) == (80, 5000)
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    assert (deployment["spec"]["replicas"], container["resources"]["limits"]) == (1, {"nvidia.com/gpu": "1"})
    assert (verdict.fits, verdict.word, exit_code([verdict])) == (True, "works, with warnings", 0)
    assert (verdict.per_hour(), verdict.per_hour(spot=True)) == (3.06, 0.3978)


def test_the_seeds_first_manifest_today() -> None:
    """Its instance type is retired and its GPU is old: both are said, with what to write instead."""
    verdict = plan(seed(1))

    assert codes(verdict, Severity.ERROR) == ["retired"]
    assert "resource.instanceType: Standard_NV36ads_A10_v5 (3.20 USD per hour)" in told(verdict, "retired")
    assert codes(verdict, Severity.WARNING) == ["engine", "engine"]
    assert exit_code([verdict]) == 1


def test_nodes_that_exist_need_no_cloud() -> None:
    """With nodes at hand (or simulated) the retirement does not matter."""
    verdict = plan(seed(1), existing_nodes=True)

    assert (verdict.fits, exit_code([verdict])) == (True, 0)


@pytest.mark.parametrize(("number", "half"), [(2, "tuning"), (3, "inference"), (4, "tuning")])
def test_the_seeds_other_manifests(number: int, half: str) -> None:
    """They are admitted, their placeholders are named, and the operator's own objection is passed on."""
    verdict = plan(seed(number), now=SEED_DAY)

    assert verdict.half == half
    assert Severity.INVALID not in {item.severity for item in verdict.findings}
    assert "placeholder" in codes(verdict, Severity.ERROR)
    assert "ACR_REPO_HERE" in told(verdict, "placeholder")
    assert exit_code([verdict]) == 1


def test_tuning_tells_its_memory() -> None:
    """QLoRA of phi-3 on 16 GiB is possible and below upstream's figure: a warning with both figures."""
    verdict = plan(seed(2), now=SEED_DAY)

    assert verdict.tuning is not None
    assert (verdict.tuning.possible, verdict.tuning.comfortable) == (True, False)
    assert "upstream asks for 72 GiB on each GPU, Standard_NC6s_v3 has 16" in told(verdict, "memory")


def test_tuning_tells_what_it_makes_and_what_is_paid_for_afterwards() -> None:
    """Filled in: Machine, settings and Job; and the node is kept until the Workspace is deleted."""
    manifest = seed(2)
    manifest["tuning"]["output"] = {"image": "example.com/tuned:1", "imagePushSecret": "push"}
    verdict = plan(manifest, now=SEED_DAY)
    steps = [f"{step.verb} {step.kind}" for step in verdict.steps]

    assert [item for item in steps if "create" in item] == ["create Machine", "create ConfigMap", "create Job"]
    assert "until the Workspace is deleted" in told(verdict, "kept")
    assert "operator" not in codes(verdict, Severity.ERROR)


def test_tuning_tells_what_batch_fits() -> None:
    """The finding has the figure of the sizing, in the setting's own name."""
    verdict = plan(seed(2), now=SEED_DAY)

    assert verdict.tuning is not None
    assert verdict.tuning.batch
    assert f"per_device_train_batch_size up to {verdict.tuning.batch}" in told(verdict, "batch")


# ------------------------------------------------------------------------------ upstream's examples


@pytest.mark.acceptance("KS-A02")
@pytest.mark.parametrize(
    ("preset", "instance_type", "gpus", "disk"),
    [
        ("falcon-7b", "Standard_NC12s_v3", 1, "50Gi"),
        ("falcon-7b-instruct", "Standard_NC12s_v3", 1, "50Gi"),
        ("mistral-7b", "Standard_NC12s_v3", 1, "100Gi"),
        ("mistral-7b-instruct", "Standard_NC12s_v3", 1, "100Gi"),
        ("phi-2", "Standard_NC6s_v3", 1, "50Gi"),
        ("falcon-40b", "Standard_NC96ads_A100_v4", 2, "400Gi"),
        ("falcon-40b-instruct", "Standard_NC96ads_A100_v4", 2, "400Gi"),
    ],
)
def test_upstreams_examples(preset: str, instance_type: str, gpus: int, disk: str) -> None:
    """They are admitted, with the disk and the GPUs of their preset."""
    verdict = plan(workspace(preset, instance_type), now=SEED_DAY)

    assert codes(verdict, Severity.INVALID) == []
    assert "capacity" not in codes(verdict)
    assert body(verdict, "Machine")["spec"]["resources"]["requests"] == {"storage": disk}
    container = body(verdict, "Deployment")["spec"]["template"]["spec"]["containers"][0]
    assert container["resources"]["limits"] == {"nvidia.com/gpu": str(gpus)}


@pytest.mark.acceptance("KS-A03")
def test_a_private_preset_needs_its_image() -> None:
    """llama-2 is admitted with an image of one's own, and refused without."""
    private = {"accessMode": "private", "presetOptions": {"image": "registry.example/llama:1"}}
    with_image = plan(workspace("llama-2-7b", "Standard_NC24ads_A100_v4", spec=private))
    without = plan(workspace("llama-2-7b", "Standard_NC24ads_A100_v4", spec={"accessMode": "private"}))

    assert (with_image.fits, exit_code([without])) == (True, 2)
    container = body(with_image, "Deployment")["spec"]["template"]["spec"]["containers"][0]
    assert container["image"] == "registry.example/llama:1"
    assert "an image must be provided" in told(without, "manifest")


@pytest.mark.acceptance("KS-A09")
@pytest.mark.parametrize(
    ("instance_type", "code", "exit_status"),
    [
        ("Standard_Bad", "manifest", 2),
        ("Standard_NC999x_v9", "unknown-instance-type", 1),
        ("Standard_D64s_v5", "unknown-instance-type", 1),
    ],
)
def test_unknown_instance_types(instance_type: str, code: str, exit_status: int) -> None:
    """A made-up type is refused; one that Azure may have is admitted, and plan cannot promise anything for it."""
    verdict = plan(workspace("phi-2", instance_type))

    assert code in codes(verdict)
    assert exit_code([verdict]) == exit_status


@pytest.mark.acceptance("KS-A10")
@pytest.mark.parametrize(
    ("preset", "instance_type", "count", "capacity"),
    [
        ("falcon-40b", "Standard_NC6s_v3", None, "Insufficient number of GPUs"),
        ("llama-2-70b", "Standard_NC24ads_A100_v4", 2, "Insufficient number of GPUs"),
        ("mistral-7b", "Standard_NC4as_T4_v3", None, None),
    ],
)
def test_capacity(preset: str, instance_type: str, count: int | None, capacity: str | None) -> None:
    """Admission's own capacity rule is passed on word for word, as something that does not fit."""
    private = {"accessMode": "private", "presetOptions": {"image": "r/i:1"}} if preset.startswith("llama") else {}
    verdict = plan(workspace(preset, instance_type, count=count, spec=private))

    assert ("capacity" in codes(verdict)) == (capacity is not None)
    if capacity:
        assert capacity in told(verdict, "capacity")
        assert exit_code([verdict]) == 1


# ------------------------------------------------------------------------------ what does not fit


def test_a_large_model_on_a_small_type() -> None:
    """The arithmetic is shown, what would hold it is listed, and nothing is suggested that cannot run."""
    verdict = plan(workspace("llama-3.3-70b-instruct", "Standard_NV36ads_A10_v5", count=1))

    assert exit_code([verdict]) == 1
    assert "weights 134.0 GiB and overhead 9.0 GiB exceed the 19.7 GiB" in told(verdict, "memory")
    assert verdict.alternatives[0].sku.instance_type == "Standard_NC80adis_H100_v5"
    assert "resource.instanceType: Standard_NC80adis_H100_v5" in told(verdict, "memory")
    assert "resource.count: 9" in told(verdict, "memory")
    assert "modelAccessSecret" in told(verdict, "gated")


@pytest.mark.acceptance("KS-A05")
def test_a_model_over_nodes_is_planned_as_it_is_made() -> None:
    """What the operator lays out over several nodes is what plan shows: Machines, layout and number."""
    private = {"accessMode": "private", "presetOptions": {"image": "r/i:1"}}
    for verdict, type_, count, layout in (
        (
            plan(workspace("llama-2-70b", "Standard_NC96ads_A100_v4", count=2, spec=private)),
            "NC96",
            2,
            "TP=4 PP=2",
        ),
        (plan(workspace("qwen2.5-coder-32b-instruct", "Standard_NC24ads_A100_v4")), "NC24", 2, "TP=1 PP=2"),
        (plan(workspace("deepseek-r1-0528")), "NC96", 3, "TP=4 PP=3"),
    ):
        machines = [step for step in verdict.steps if step.kind == "Machine"]

        assert verdict.fits
        assert verdict.sizing is not None
        assert type_ in verdict.instance_type
        assert (len(machines), verdict.nodes, str(verdict.sizing.layout)) == (count, count, layout)
        assert f"{count} x {verdict.instance_type}" in render(verdict)


def test_a_model_that_nobody_knows_is_told_as_the_operator_tells_it() -> None:
    """Without a number of nodes the operator's own cause is passed on, and with one its steps are shown."""
    blind = plan(workspace("acme/model", "Standard_NC24ads_A100_v4"))
    written = plan(workspace("acme/model", "Standard_NC24ads_A100_v4", count=1))

    assert "ModelUnknown" in told(blind, "operator")
    assert "resource.count" in told(blind, "operator")
    assert [step.kind for step in written.steps if step.kind == "Machine"] == ["Machine"]


def test_a_spot_annotation_is_priced_as_spot() -> None:
    """Who asks the operator for spot nodes sees what these cost."""
    obj = workspace("phi-2", "Standard_NC24ads_A100_v4")
    obj["metadata"]["annotations"] = {"kaito.sh/capacity-type": "spot"}
    verdict = plan(obj)

    assert verdict.spot
    assert {"key": "karpenter.sh/capacity-type", "operator": "In", "values": ["spot"]} in body(verdict, "Machine")[
        "spec"
    ]["requirements"]


def test_a_suggestion_works() -> None:
    """Whoever writes what plan suggests gets a plan without that problem."""
    first = plan(workspace("microsoft/phi-4", "Standard_NV36ads_A10_v5", count=1))
    step = told(first, "memory").split("resource.instanceType: ")[1].split()[0]

    second = plan(workspace("microsoft/phi-4", step, count=1))

    assert "memory" in codes(first, Severity.ERROR)
    assert second.fits


def test_idle_gpus_are_said() -> None:
    """Where the operator's pods ask for fewer GPUs than the node has, that is judged and said."""
    verdict = plan(workspace("phi-2", "Standard_NC96ads_A100_v4"))
    limits = body(verdict, "Deployment")["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]

    assert verdict.sizing is not None
    assert verdict.sizing.gpu.count == int(limits["nvidia.com/gpu"])
    assert ("idle-gpus" in codes(verdict)) == (verdict.sizing.gpu.count < 4)


def test_the_context_counts() -> None:
    """A context that is asked for decides, from the option or from the Workspace's own ConfigMap."""
    obj = workspace("phi-3-mini-128k-instruct", "Standard_NV36ads_A10_v5", config="mine")
    config = {
        "kind": "ConfigMap",
        "metadata": {"name": "mine"},
        "data": {"inference_config.yaml": "vllm:\n  max-model-len: 131072\n"},
    }

    assert plan(obj).fits
    assert "context" in codes(plan(obj), Severity.NOTE)
    assert not plan(obj, config).fits
    assert not plan(obj, wish=Wish(context=131_072)).fits
    assert "Standard_NC24ads_A100_v4" in told(plan(obj, config), "memory")


@pytest.mark.parametrize(
    ("preset", "instance_type", "code", "fragment"),
    [
        ("openai/gpt-oss-20b", "Standard_NC64as_T4_v3", "engine", "mxfp4 need compute capability 8.0"),
        ("phi-2", "Standard_NG32ads_V620_v1", "engine", "built for NVIDIA GPUs"),
        ("phi-2", "Standard_ND96asr_A100_v4", "instance-type", "it is called Standard_ND96asr_v4"),
        ("phi-2", "Standard_NV18ads_A10_v5", "partial-gpu", "a part of a GPU"),
        ("phi-2", "g5g.xlarge", "architecture", "arm64"),
    ],
)
def test_other_reasons(preset: str, instance_type: str, code: str, fragment: str) -> None:
    """Each reason why a model does not run somewhere has its sentence."""
    assert fragment in " ".join(
        item.message for item in plan(workspace(preset, instance_type)).findings if item.code == code
    )


# ------------------------------------------------------------------------------ choosing


def test_no_instance_type() -> None:
    """Without a type one is chosen, the plan is made for it, and what the operator wants is said."""
    verdict = plan(workspace("microsoft/phi-4"))

    assert (verdict.instance_type, verdict.chosen_by) == ("Standard_NC24ads_A100_v4", "price")
    assert body(verdict, "Machine")["spec"]["requirements"][0]["values"] == ["Standard_NC24ads_A100_v4"]
    assert verdict.fits


def test_cheapest_replaces_what_is_written() -> None:
    """--cheapest chooses whatever the manifest names, and says what it replaced."""
    verdict = plan(workspace("phi-2", "Standard_ND96isr_H100_v5"), cheapest=True)

    assert verdict.instance_type == "Standard_NV36ads_A10_v5"
    assert "instead of Standard_ND96isr_H100_v5 for the lowest price" in told(verdict, "chosen")


def test_the_named_types_cloud_counts() -> None:
    """Who names an AWS type gets AWS types suggested, unless a cloud is asked for."""
    obj = workspace("microsoft/phi-4", "g5.xlarge")

    assert {item.sku.cloud for item in plan(obj, wish=Wish(cloud="")).alternatives} == {"aws"}
    assert {item.sku.cloud for item in plan(obj, wish=Wish(cloud="azure")).alternatives} == {"azure"}


def test_without_prices_it_says_so() -> None:
    """Without any price the choice goes by memory, and no cost is shown."""
    around = Around(now=NOW, prices=PriceBook(), cheapest=True)

    verdict = judge(workspace("phi-2", "Standard_NC24ads_A100_v4"), [], around)

    assert "the least GPU memory that fits" in told(verdict, "chosen")
    assert verdict.per_hour() is None
    assert "--prices FILE" in told(verdict, "price")


class _Quota:
    def left(self, instance_type: str) -> int | None:
        return {"Standard_NC24ads_A100_v4": 0}.get(instance_type)


def test_quota_counts_where_it_can_be_asked() -> None:
    """A quota that leaves too few nodes is an error; one that nobody can tell is none."""
    short = plan(workspace("phi-2", "Standard_NC24ads_A100_v4"), quota=_Quota())
    unknown = plan(workspace("phi-2", "Standard_NV36ads_A10_v5"), quota=_Quota())

    assert "leaves 0 nodes" in told(short, "quota")
    assert "quota" not in codes(unknown)


def test_tuning_without_a_type_gets_one() -> None:
    """A tuning Workspace that names no type is planned for the cheapest with what upstream asks for."""
    obj = seed(2)
    obj["resource"].pop("instanceType")

    verdict = plan(obj)

    assert (verdict.instance_type, verdict.chosen_by) == ("Standard_NC24ads_A100_v4", "price")
    assert verdict.tuning is not None
    assert verdict.tuning.comfortable


def test_a_template_is_its_authors() -> None:
    """A Workspace with a pod template has nodes and a price, and nothing is said about a model."""
    obj = workspace("x", "Standard_NC24ads_A100_v4")
    obj["inference"] = {"template": {"spec": {"containers": [{"name": "c", "image": "nginx"}]}}}

    verdict = plan(obj)

    assert (verdict.half, verdict.sizing, verdict.per_hour(), verdict.fits) == ("template", None, 3.673, True)
    kinds = [step.kind for step in verdict.steps]
    assert kinds == ["Workspace", "Machine", "Node", "ControllerRevision", "Workspace", "Deployment"]
    assert "nginx" in render(verdict)


def test_several_nodes_are_several_machines() -> None:
    """Three nodes are three Machines with names of their own, drawn together, and cost three times as much."""
    verdict = plan(workspace("phi-2", "Standard_NC24ads_A100_v4", count=3))

    machines = [step for step in verdict.steps if step.kind == "Machine"]
    assert len({step.name for step in machines}) == 3
    assert verdict.per_hour() == pytest.approx(3 * 3.673)
    assert verdict.sizing is not None
    assert verdict.sizing.layout.data == 3
    assert "3 of them" in render(verdict)


def test_two_of_one_name() -> None:
    """The seed's first two manifests share a name, and applying one over the other is a forbidden toggle."""
    first, second = seed(1), seed(2)

    mixed = judge(first, [first, second], Around(now=SEED_DAY, prices=packaged_prices()))
    alike = judge(first, [first, dict(first)], Around(now=SEED_DAY, prices=packaged_prices()))

    assert "inference cannot become tuning" in told(mixed, "namesake")
    assert (mixed.fits, alike.fits) == (False, True)
    assert "each replaces the one before" in told(alike, "namesake")


def test_more_context_than_the_model_has() -> None:
    """A context beyond the model's own limit fits nowhere, and the limit is named."""
    verdict = plan(workspace("phi-2", "Standard_NC24ads_A100_v4"), wish=Wish(context=100_000))

    assert "the model's own limit is 2048" in told(verdict, "memory")
    assert verdict.alternatives == ()


# ------------------------------------------------------------------------------ refused


@pytest.mark.parametrize(
    ("obj", "fragment"),
    [
        (workspace("phi-3-mini-4k-instuct", "Standard_NC6s_v3"), "did you mean phi-3-mini-4k-instruct"),
        (workspace("phi-2") | {"resource": {}}, "resource.labelSelector"),
        (workspace("phi-2") | {"infrence": {}}, "did you mean inference?"),
    ],
)
def test_refused_manifests(obj: dict[str, Any], fragment: str) -> None:
    """A manifest that would be refused says all that is wrong with it, and nothing is planned."""
    verdict = plan(obj)

    assert (verdict.word, exit_code([verdict]), verdict.steps) == ("is refused", 2, ())
    assert fragment in " ".join(f"{item.message} {item.next}" for item in verdict.findings)


# ------------------------------------------------------------------------------ output


def test_json_is_a_contract() -> None:
    """The field names are stable, every figure is there, and the objects are the operator's own."""
    obj = plan(seed(1), now=SEED_DAY).to_obj()

    assert list(obj) == [
        "name",
        "namespace",
        "kind",
        "fits",
        "verdict",
        "findings",
        "model",
        "nodes",
        "sizing",
        "tuning",
        "cost",
        "steps",
        "objects",
        "alternatives",
        "passedOver",
    ]
    assert obj["nodes"]["instanceType"] == "Standard_NC6s_v3"
    assert obj["sizing"]["maxModelLen"] == 4096
    assert set(obj["sizing"]["perGpu"]) == {
        "memory",
        "usable",
        "weights",
        "overhead",
        "cache",
        "cachePerToken",
        "cacheTokens",
    }
    assert (obj["cost"]["perHour"], obj["cost"]["currency"]) == (3.06, "USD")
    assert [item["kind"] for item in obj["objects"]] == [
        "Machine",
        "ControllerRevision",
        "ConfigMap",
        "Service",
        "Deployment",
    ]
    assert json.loads(json.dumps(obj)) == obj


def test_the_table_teaches() -> None:
    """The text has the verdict, the cost, the arithmetic, the steps in order, and what to do next."""
    verdict = plan(seed(1))

    text = render(verdict)

    for words in (
        "default/workspace-phi-3-mini (inference, phi-3-mini-4k-instruct): does not work",
        "3.06 USD per hour, 0.40 on spot (eastus, as of 2024-08)",
        "of one GPU: 7.3 weights + 2.7 overhead + 3.5 cache = 13.4 of 16.0 GiB",
        "2   create   Machine",
        "next: write resource.instanceType",
    ):
        assert words in text
    assert "\033[" not in text
    assert "Instance types that were passed over" in render(verdict, wide=True)


def test_colour_is_for_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    """Colours are used where a person looks and has not asked for none."""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    verdict = plan(seed(1))

    coloured = render(verdict)
    monkeypatch.setenv("NO_COLOR", "1")

    assert "\033[31m" in coloured
    assert "\033[" not in render(verdict)


def test_the_sum_counts_what_works() -> None:
    """Several workspaces end in one line: how many work, and what these cost together."""
    good = plan(workspace("phi-2", "Standard_NC24ads_A100_v4"))
    bad = plan(workspace("llama-3.3-70b-instruct", "Standard_NV36ads_A10_v5"))

    assert summary([good, good, bad]) == "2 of 3 work as written; together 7.35 USD per hour"
    assert exit_code([good, bad]) == 1


# ------------------------------------------------------------------------------ the command


def _kaito(*args: str, stdin: str = "", **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "kaito", *args],
        capture_output=True,
        text=True,
        input=stdin,
        env={**os.environ, "TERM": "dumb", "COLUMNS": "100", **env},
        timeout=60,
    )


def test_several_documents_from_standard_input() -> None:
    """A stream of documents is judged one by one; other kinds are read and left alone."""
    stream = yaml.safe_dump_all(
        [
            workspace("phi-2", "Standard_NC24ads_A100_v4"),
            {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}},
            workspace("phi-2", "Standard_NV36ads_A10_v5"),
        ]
    )

    done = _kaito("plan", "-f", "-", "-o", "json", stdin=stream)

    assert (done.returncode, done.stderr) == (0, "1 other objects were read and not judged\n")
    assert [item["nodes"]["instanceType"] for item in json.loads(done.stdout)["workspaces"]] == [
        "Standard_NC24ads_A100_v4",
        "Standard_NV36ads_A10_v5",
    ]


def test_plan_starts_light() -> None:
    """The command loads no HTTP client, no engine and no cluster library, and is quick."""
    heavy = ("aiohttp", "kubernetes_asyncio", "vllm", "torch", "cryptography", "rich", "prometheus_client")
    code = (
        "import sys\nfrom kaito.cli import app\n"
        f"try: app(['plan', '-f', {str(ROOT / 'config' / 'samples' / '1-phi-3-inference.yaml')!r}])\n"
        "except SystemExit: pass\n"
        f"sys.stderr.write(' '.join(m for m in {heavy!r} if m in sys.modules))"
    )
    started = time.process_time()

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)

    assert "workspace-phi-3-mini" in done.stdout
    assert done.stderr == ""
    assert time.process_time() - started < 1


@pytest.mark.parametrize(
    ("text", "fragment"),
    [
        ("a: [", "is not YAML"),
        ("", "no objects"),
        ("{apiVersion: v1, kind: Secret, metadata: {name: x}}", "there is no Workspace in it, only Secret"),
    ],
)
def test_bad_input_is_exit_2(tmp_path: Path, text: str, fragment: str) -> None:
    """What cannot be read, and files without a Workspace, are bad input."""
    file = tmp_path / "ws.yaml"
    file.write_text(text)

    with pytest.raises(CliError) as caught:
        run(Request([str(file)]))

    assert caught.value.exit_code == 2
    assert fragment in caught.value.message


@pytest.mark.parametrize(
    ("text", "fragment"),
    [("[", "neither YAML nor JSON"), ("{}", 'no list named "prices"'), (None, "cannot be read")],
)
def test_a_bad_price_file_is_exit_2(tmp_path: Path, text: str | None, fragment: str) -> None:
    """A price file that cannot be used says why, and shows the format."""
    prices = tmp_path / "prices.yaml"
    if text is not None:
        prices.write_text(text)

    with pytest.raises(CliError) as caught:
        run(Request([str(ROOT / "config" / "samples" / "1-phi-3-inference.yaml")], prices=prices))

    assert caught.value.exit_code == 2
    assert fragment in caught.value.message


def test_a_price_file_decides(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The user's price is what is shown and what the choice goes by."""
    manifest, prices = tmp_path / "ws.yaml", tmp_path / "prices.json"
    manifest.write_text(yaml.safe_dump(workspace("phi-2", "Standard_NC24ads_A100_v4")))
    row = {"instanceType": "Standard_NC24ads_A100_v4", "region": "westeurope", "onDemand": 1.5}
    prices.write_text(json.dumps({"currency": "EUR", "date": "2026-10-01", "source": "contract", "prices": [row]}))

    code = run(Request([str(manifest)], prices=prices, cheapest=True))

    shown = capsys.readouterr().out
    assert code == 0
    assert "1.50 EUR per hour (westeurope, as of 2026-10-01)" in shown


def test_yaml_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """YAML says what JSON says."""
    manifest = tmp_path / "ws.yaml"
    manifest.write_text(yaml.safe_dump(workspace("phi-2", "Standard_NC24ads_A100_v4")))

    run(Request([str(manifest)], output="yaml"))
    as_yaml = yaml.safe_load(capsys.readouterr().out)
    run(Request([str(manifest)], output="json"))
    as_json = json.loads(capsys.readouterr().out)

    assert as_yaml == as_json
    assert as_json["fits"] is True
