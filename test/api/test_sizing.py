"""How a model is laid over GPUs: hand-computed budgets, measured engines as the upper limit, and laws."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.catalog import find_preset, preset, presets, sku
from api.quantity import GIB
from api.sizing import (
    Assumptions,
    GpuFacts,
    ModelFacts,
    engine_limits,
    gpus_per_node,
    node_count,
    size,
    tuning_fit,
)
from api.sizing.memory import Layout, budget, tensor_sizes

A100 = GpuFacts("a100", 1, 80 * GIB, "NVIDIA A100", 8.0)
H100_NVL = GpuFacts("h100", 2, 94 * GIB, "NVIDIA H100", 9.0)
A10 = GpuFacts("a10", 1, 24 * GIB, "NVIDIA A10", 8.6)


def model(name: str) -> ModelFacts:
    return ModelFacts.of(preset(name))


def gpus(name: str) -> GpuFacts:
    found = sku(name)
    assert found is not None
    return GpuFacts.of(found)


# ------------------------------------------------------------------------------ budgets


def test_a_budget_adds_up() -> None:
    """Weights, overhead and cache are all of what the engine takes, each by its own rule."""
    facts = ModelFacts("m", 10 * GIB, 131_072, 32_768, 32, 32, 8)

    found = budget(facts, A100, Layout(1), Assumptions())

    assert found.usable == int(80 * GIB * 0.84)
    assert found.weights == pytest.approx(10.2 * GIB, abs=2)
    assert found.overhead == pytest.approx(2.3 * GIB + 0.51 * GIB, abs=2)
    assert found.cache == found.usable - found.weights - found.overhead
    assert found.tokens == found.cache // 131_072


@pytest.mark.parametrize(
    ("kv_heads", "tensor", "per_token"),
    [(8, 1, 64_000), (8, 4, 16_000), (8, 16, 8_000), (0, 1, 64_000), (0, 8, 64_000)],
)
def test_what_is_sharded_and_what_is_repeated(kv_heads: int, tensor: int, per_token: int) -> None:
    """Key-value heads are dealt out and repeated beyond their number; one latent (MLA) is on every GPU."""
    facts = ModelFacts("m", GIB, 64_000, 4096, 32, 64, kv_heads)

    assert budget(facts, A100, Layout(1, tensor), Assumptions()).per_token == per_token


def test_a_pipeline_deals_out_whole_layers() -> None:
    """Of 10 layers on 4 stages one stage has 3, and that stage decides."""
    facts = ModelFacts("m", 100 * GIB, 100_000, 4096, 10, 8, 8)

    found = budget(facts, A100, Layout(4, pipeline=4), Assumptions())

    assert found.weights == pytest.approx(100 * GIB * 1.02 * 0.3, abs=2)
    assert found.per_token == 30_000


@pytest.mark.parametrize(
    ("heads", "kv_heads", "count", "groups"),
    [
        (32, 8, 8, (8, 4, 2, 1)),
        (40, 10, 8, (2, 1)),
        (71, 1, 2, (1,)),
        (32, 2, 4, (4, 2, 1)),
        (128, 0, 8, (8, 4, 2, 1)),
    ],
)
def test_heads_decide_the_groups(heads: int, kv_heads: int, count: int, groups: tuple[int, ...]) -> None:
    """A tensor-parallel group must divide the heads: phi-3-medium's ten key-value heads do not go on 8 GPUs."""
    assert tensor_sizes(ModelFacts("m", GIB, 1, 1, 40, heads, kv_heads), count) == groups


# ------------------------------------------------------------------------------ measured engines

MEASURED = [
    # model, GPUs, nodes, layout, tokens that the engine had (upstream's pull request 2156)
    (model("mistralai/mistral-small-4-119b-2603"), H100_NVL, 1, Layout(1, 2), 810_208),
    (ModelFacts("qwen3-8b", int(15.26 * GIB), 147_456, 40_960, 36, 32, 8), A10, 1, Layout(1), 20_272),
    (ModelFacts("qwen3-14b", int(27.51 * GIB), 163_840, 40_960, 40, 40, 8), A10, 2, Layout(2, 1, 2), 55_952),
    (model("google/gemma-4-31b-it"), H100_NVL, 1, Layout(1, 2), 764_825),
    (model("qwen/qwen3.5-397b-a17b-gptq-int4"), H100_NVL, 2, Layout(2, 2, 2), 2_444_645),
]


@pytest.mark.parametrize("row", MEASURED, ids=lambda row: row[0].name)
def test_never_promises_more_than_a_real_engine_had(row: tuple) -> None:
    """The cache that is promised is one that vLLM really had, and for plain attention at least a third of it."""
    facts, gpu, nodes, layout, tokens = row

    found = size(facts, gpu, nodes=nodes)

    assert (found.fits, found.layout) == (True, layout)
    assert found.budget.tokens <= tokens
    if not facts.kv_upper_bound:
        assert found.budget.tokens >= tokens / 3


@pytest.mark.parametrize(("utilization", "tokens"), [(0.7, 117_264), (0.75, 195_968)])
def test_measured_with_less_memory(utilization: float, tokens: int) -> None:
    """The same holds where the engine was given less: minimax-m2.7 on two nodes of two H100s."""
    found = size(model("minimaxai/minimax-m2.7"), H100_NVL, nodes=2, assumed=Assumptions(utilization=utilization))

    assert found.fits
    assert tokens / 2 <= found.budget.tokens <= tokens


# ------------------------------------------------------------------------------ layouts


@pytest.mark.parametrize(
    ("name", "instance_type", "nodes", "layout"),
    [
        ("phi-3-mini-4k-instruct", "Standard_NC6s_v3", 1, "TP=1"),
        ("falcon-7b", "Standard_NC12s_v3", 1, "TP=1 PP=2"),  # 71 heads cannot be halved
        ("mistral-7b", "Standard_NC12s_v3", 1, "TP=2"),
        ("falcon-40b", "Standard_NC96ads_A100_v4", 1, "TP=4"),
        ("llama-2-70b", "Standard_NC96ads_A100_v4", 1, "TP=4"),
        ("qwen/qwen2.5-coder-32b-instruct", "Standard_NC96ads_A100_v4", 1, "TP=4"),
        ("qwen/qwen2.5-coder-7b-instruct", "Standard_NC96ads_A100_v4", 1, "TP=1 DP=4"),
        ("microsoft/phi-4", "Standard_NV36ads_A10_v5", 2, "TP=1 PP=2"),
        ("meta-llama/llama-3.3-70b-instruct", "Standard_NC24ads_A100_v4", 3, "TP=1 PP=3"),
        ("deepseek-ai/deepseek-r1-0528", "Standard_ND96isr_H200_v5", 1, "TP=8"),
    ],
)
def test_layouts(name: str, instance_type: str, nodes: int, layout: str) -> None:
    """Fewest nodes, then the widest group that the heads allow; copies where each GPU holds any request."""
    found = size(model(name), gpus(instance_type))

    assert (found.fits, found.nodes, str(found.layout)) == (True, nodes, layout)


@pytest.mark.acceptance("KS-A04")
@pytest.mark.parametrize("name", ["llama-2-13b", "llama-2-13b-chat"])
def test_a_distributed_preset_on_one_node(name: str) -> None:
    """llama-2-13b is a distributed preset of two processes, and one node of two GPUs is what it needs."""
    found = preset(name)

    assert (found.distributed, found.world_size, found.gpu_count) == (True, 2, 2)
    assert node_count(found, sku("Standard_NC12s_v3"), None) == 1
    assert gpus_per_node(found, sku("Standard_NC12s_v3")) == 2


@pytest.mark.acceptance("KS-A05")
@pytest.mark.parametrize("name", ["llama-2-70b", "llama-2-70b-chat"])
def test_a_distributed_preset_on_two_nodes(name: str) -> None:
    """llama-2-70b on two nodes of four GPUs is two groups of four, as upstream's two times four processes."""
    found = size(model(name), gpus("Standard_NC96ads_A100_v4"), nodes=2)

    assert (found.fits, found.layout) == (True, Layout(2, 4, 2))
    assert preset(name).world_size == found.layout.gpus == 8
    assert node_count(preset(name), sku("Standard_NC96ads_A100_v4"), None) == 2


def test_a_written_count_is_exact() -> None:
    """Two nodes of a preset that cannot be spread are two copies; too few nodes do not fit and say what misses."""
    two = size(model("phi-3-mini-4k-instruct"), gpus("Standard_NC6s_v3"), nodes=2)
    few = size(model("meta-llama/llama-3.3-70b-instruct"), A100, nodes=1)

    assert (two.fits, two.nodes, two.layout.data) == (True, 2, 2)
    assert two.cache_tokens == 2 * two.budget.tokens
    assert not few.fits
    assert "weights 134.0 GiB" in few.why
    assert "67.2 GiB" in few.why


def test_a_preset_of_one_node_says_so() -> None:
    """A model that its preset cannot spread does not get more nodes, and the reason names that."""
    found = size(model("falcon-40b"), A10)

    assert not found.fits
    assert "cannot be spread over nodes" in found.why


def test_every_other_layout_has_a_reason() -> None:
    """What was tried and not taken is told, with why."""
    found = size(model("microsoft/phi-4"), gpus("Standard_ND96isr_H100_v5"))

    assert found.rejected
    assert all(item.rejected for item in found.rejected)
    assert not found.candidate.rejected


def test_a_longer_context_is_a_wish_that_counts() -> None:
    """A context that one node's cache cannot hold takes more nodes; one beyond the model's limit is refused."""
    name = "microsoft/phi-3-mini-128k-instruct"
    short, long = size(model(name), A10), size(model(name), A10, context=131_072)
    beyond = size(model(name), A10, context=200_000)

    assert (short.nodes, long.nodes) == (1, 4)
    assert long.max_model_len == 131_072
    assert not beyond.fits
    assert "the model's own limit is 131072" in beyond.why


@pytest.mark.parametrize("wrong", [{"context": 0}, {"nodes": 0}])
def test_nonsense_is_refused(wrong: dict[str, int]) -> None:
    """A context or a number of nodes below 1, and a node without GPUs, are errors of the caller."""
    with pytest.raises(ValueError, match="1 at least"):
        size(model("phi-2"), A10, **wrong)
    with pytest.raises(ValueError, match="has no GPU"):
        size(model("phi-2"), replace(A10, count=0))


# ------------------------------------------------------------------------------ nodes that are there


def test_facts_from_node_labels() -> None:
    """GPU feature discovery's labels are enough to size for nodes that somebody brings along."""
    labels = {
        "nvidia.com/gpu.count": "2",
        "nvidia.com/gpu.memory": "81559",
        "nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3",
        "nvidia.com/gpu.compute.major": "9",
        "nvidia.com/gpu.compute.minor": "0",
    }

    found = GpuFacts.of_labels("node", labels)

    assert found == GpuFacts("node", 2, 81559 * 1024**2, "NVIDIA H100 80GB HBM3", 9.0)
    assert GpuFacts.of_labels("node", {}) is None


@pytest.mark.acceptance("KS-A18")
@pytest.mark.parametrize(("profile", "fits"), [("3g.47gb", True), ("1g.6gb", False)])
def test_a_mig_slice_is_one_small_gpu(profile: str, fits: bool) -> None:
    """A slice that holds the model makes one node; a tiny one does not fit, on any number of nodes."""
    found = size(model("falcon-7b"), H100_NVL.slice(profile), nodes=1)

    assert (found.fits, found.nodes) == (fits, 1)
    with pytest.raises(ValueError, match="not a MIG profile"):
        H100_NVL.slice("3g.47gb+me")


# ------------------------------------------------------------------------------ what the engine cannot do


@pytest.mark.parametrize(
    ("name", "instance_type", "blocks"),
    [
        ("phi-3-mini-4k-instruct", "Standard_NC6s_v3", [False, False]),
        ("phi-3-mini-4k-instruct", "Standard_NC4as_T4_v3", [False]),
        ("phi-3-mini-4k-instruct", "Standard_NC24ads_A100_v4", []),
        ("phi-2", "Standard_NC6", [True]),
        ("phi-2", "Standard_NG32ads_V620_v1", [True]),
        ("openai/gpt-oss-20b", "Standard_NC4as_T4_v3", [False, True]),
        ("qwen/qwen3-8b-awq", "Standard_NC6s_v3", [False, False, True]),
        ("deepseek-ai/deepseek-v3.2", "Standard_NC96ads_A100_v4", [True]),
    ],
)
def test_engine_limits(name: str, instance_type: str, blocks: list[bool]) -> None:
    """Old and foreign GPUs, quantisation and sparse attention: what stops a model, and what only costs."""
    limits = engine_limits(model(name), gpus(instance_type))

    assert [limit.blocks for limit in limits] == blocks


@pytest.mark.parametrize(
    ("name", "method", "instance_type", "possible", "comfortable"),
    [
        ("phi-3-mini-4k-instruct", "qlora", "Standard_NC6s_v3", True, False),
        ("phi-3-mini-4k-instruct", "lora", "Standard_NC24ads_A100_v4", True, True),
        ("falcon-40b", "lora", "Standard_NC24ads_A100_v4", False, False),
        ("falcon-40b", "qlora", "Standard_NC96ads_A100_v4", True, True),
        ("microsoft/phi-4", "lora", "Standard_NV36ads_A10_v5", False, False),
    ],
)
def test_tuning(name: str, method: str, instance_type: str, possible: bool, comfortable: bool) -> None:
    """Tuning is impossible where the weights do not fit, and uncomfortable below upstream's figure."""
    found = tuning_fit(preset(name), method, gpus(instance_type))

    assert found is not None
    assert (found.possible, found.comfortable) == (possible, comfortable)


def test_the_batch_grows_with_the_memory_that_is_left() -> None:
    """qlora leaves more room than lora, a larger GPU more than a small one, and no room is no sample."""
    name = "phi-3-mini-4k-instruct"
    small, large = gpus("Standard_NC6s_v3"), gpus("Standard_NC24ads_A100_v4")
    batches = [
        found.batch
        for found in (
            tuning_fit(preset(name), *case) for case in (("lora", small), ("qlora", small), ("lora", large))
        )
        if found is not None and found.batch is not None
    ]
    nothing = tuning_fit(preset("falcon-40b"), "lora", small)

    assert len(batches) == 3
    assert 1 <= batches[0] < batches[1] < batches[2]
    assert nothing is not None
    assert nothing.batch == 0


def test_no_tuning() -> None:
    """A preset that cannot be tuned has no verdict."""
    assert tuning_fit(preset("phi-3-mini-4k-instruct"), "lora", A10) is not None
    assert tuning_fit(preset("falcon-7b-instruct"), "lora", A10) is None


def test_every_preset_can_be_sized() -> None:
    """The catalogue knows enough of every preset, of both eras."""
    assert len([ModelFacts.of(item) for item in presets()]) == 77
    assert find_preset("phi-2") is not None


# ------------------------------------------------------------------------------ laws

heads = st.sampled_from([(32, 8), (40, 10), (71, 1), (64, 64), (128, 0), (24, 4), (32, 2)])
models = st.builds(
    lambda weights, kv, limit, layers, split: ModelFacts("m", weights * GIB, kv, limit, layers, *split),
    st.integers(1, 800),
    st.integers(8_000, 1_000_000),
    st.integers(2048, 300_000),
    st.integers(1, 120),
    heads,
)
nodes_of_gpus = st.builds(
    lambda count, memory: GpuFacts("g", count, memory * GIB), st.sampled_from([1, 2, 4, 8]), st.integers(8, 200)
)


def _need(facts: ModelFacts, gpu: GpuFacts, context: int | None) -> float:
    found = size(facts, gpu, context=context)
    return found.nodes if found.fits else float("inf")


@settings(max_examples=150, deadline=None)
@given(models, nodes_of_gpus, st.integers(1, 100))
def test_more_memory_never_needs_more_nodes(facts: ModelFacts, gpu: GpuFacts, extra: int) -> None:
    """Larger GPUs take the same number of nodes or fewer, and hold as long a request on as many nodes."""
    larger = replace(gpu, memory=gpu.memory + extra * GIB)
    small, large = size(facts, gpu), size(facts, larger)

    assert _need(facts, larger, None) <= _need(facts, gpu, None)
    if small.fits and large.nodes == small.nodes and small.layout == large.layout:
        assert large.max_model_len >= small.max_model_len


@settings(max_examples=150, deadline=None)
@given(models, nodes_of_gpus, st.data())
def test_a_longer_context_never_needs_fewer_nodes(facts: ModelFacts, gpu: GpuFacts, data: st.DataObject) -> None:
    """Asking for more tokens takes the same number of nodes or more."""
    short = data.draw(st.integers(1, facts.context_limit))
    long = data.draw(st.integers(short, facts.context_limit))

    assert _need(facts, gpu, short) <= _need(facts, gpu, long)


@settings(max_examples=150, deadline=None)
@given(models, nodes_of_gpus)
def test_more_gpus_on_a_node_never_need_more_nodes(facts: ModelFacts, gpu: GpuFacts) -> None:
    """Twice the GPUs on every node take the same number of nodes or fewer."""
    assert _need(facts, replace(gpu, count=2 * gpu.count), None) <= _need(facts, gpu, None)


@settings(max_examples=150, deadline=None)
@given(models, nodes_of_gpus, st.integers(1, 200))
def test_a_heavier_model_never_needs_fewer_nodes(facts: ModelFacts, gpu: GpuFacts, extra: int) -> None:
    """More weights take the same number of nodes or more."""
    heavier = replace(facts, weights=facts.weights + extra * GIB)

    assert _need(facts, gpu, None) <= _need(heavier, gpu, None)


@settings(max_examples=150, deadline=None)
@given(models, nodes_of_gpus)
def test_what_fits_fits(facts: ModelFacts, gpu: GpuFacts) -> None:
    """A sizing that fits has its weights, overhead and wanted context inside what the engine takes."""
    found = size(facts, gpu)

    if found.fits:
        used = found.budget.weights + found.budget.overhead + found.budget.per_token * found.context
        assert used <= found.budget.usable
        assert found.layout.gpus <= found.gpus
        assert found.context <= found.max_model_len <= facts.context_limit
