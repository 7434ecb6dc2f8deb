"""The catalogues hold upstream's figures, less its slips, and help with misspelt names."""

from __future__ import annotations

import pytest

from api.catalog import architectures, find_preset, preset, presets, sku, skus
from api.errors import UnknownPreset
from api.quantity import GIB

# name, private, disk, GPUs, total GiB, GiB per GPU, tag, minutes, distributed, tuning (GPUs, total, per GPU)
V03 = [
    ("falcon-7b", False, "50Gi", 1, 14, 0, "0.0.6", 30, False, (1, 16, 16)),
    ("falcon-7b-instruct", False, "50Gi", 1, 14, 0, "0.0.6", 30, False, None),
    ("falcon-40b", False, "400Gi", 2, 90, 0, "0.0.7", 30, False, (2, 90, 16)),
    ("falcon-40b-instruct", False, "400Gi", 2, 90, 0, "0.0.7", 30, False, None),
    ("llama-2-7b", True, "34Gi", 1, 14, 14, "0.0.3", 10, False, None),
    ("llama-2-13b", True, "46Gi", 2, 30, 15, "0.0.3", 20, True, None),
    ("llama-2-70b", True, "158Gi", 8, 152, 19, "0.0.3", 30, True, None),
    ("llama-2-7b-chat", True, "34Gi", 1, 16, 14, "0.0.3", 10, False, None),
    ("llama-2-13b-chat", True, "46Gi", 2, 30, 15, "0.0.3", 20, True, None),
    ("llama-2-70b-chat", True, "158Gi", 8, 192, 19, "0.0.3", 30, True, None),
    ("mistral-7b", False, "100Gi", 1, 14, 0, "0.0.7", 30, False, (1, 16, 16)),
    ("mistral-7b-instruct", False, "100Gi", 1, 16, 0, "0.0.7", 30, False, None),
    ("phi-2", False, "50Gi", 1, 12, 0, "0.0.5", 30, False, (1, 16, 16)),
    ("phi-3-mini-4k-instruct", False, "50Gi", 1, 9, 0, "0.0.2", 30, False, (1, 72, 72)),
    ("phi-3-mini-128k-instruct", False, "50Gi", 1, 9, 0, "0.0.2", 30, False, (1, 72, 72)),
    ("phi-3-medium-4k-instruct", False, "50Gi", 1, 28, 0, "0.0.2", 30, False, (1, 80, 80)),
    ("phi-3-medium-128k-instruct", False, "50Gi", 1, 28, 0, "0.0.2", 30, False, (1, 80, 80)),
]


@pytest.mark.parametrize("row", V03, ids=lambda row: row[0])
def test_v03_figures(row: tuple) -> None:
    """A preset of the seed's era has v0.3.1's figures (falcon-40b's disk with the unit that upstream forgot)."""
    name, private, disk, gpus, total, per_gpu, tag, minutes, distributed, tuning = row

    found = preset(name)

    assert (found.private, found.disk, found.gpu_count, found.image_tag) == (private, disk, gpus, tag)
    assert (found.total_gpu_memory, found.per_gpu_memory) == (total * GIB, per_gpu * GIB)
    assert (found.readiness_timeout, found.distributed) == (minutes * 60, distributed)
    assert found.image == f"kaito-{name}"
    tuned = found.tuning and (found.tuning.gpu_count, found.tuning.total_gpu_memory, found.tuning.per_gpu_memory)
    assert tuned == (tuning and (tuning[0], tuning[1] * GIB, tuning[2] * GIB))


def test_seventeen_then_sixty() -> None:
    """The seed's era comes first, then the newer catalogue; no name occurs twice."""
    eras = [item.era for item in presets()]

    assert eras == ["v0.3"] * 17 + ["v0.12"] * 60
    assert len({item.name for item in presets()}) == 77


def test_the_seeds_era_owns_its_names() -> None:
    """phi-3-mini-4k-instruct is the v0.3 preset; the hub's id finds the newer row."""
    assert preset("phi-3-mini-4k-instruct").weights_in_image
    assert preset("microsoft/Phi-3-mini-4k-instruct").image == "kaito-base"
    assert preset("phi-4").hf_id == "microsoft/phi-4"


def test_old_presets_know_their_model() -> None:
    """Weights, context and architecture are there for every preset of the seed's era."""
    for item in presets()[:17]:
        assert item.weights_bytes
        assert item.context_limit
        assert item.architecture.endswith("ForCausalLM")
    phi = preset("phi-3-mini-4k-instruct")
    assert (phi.context_limit, phi.kv_bytes_per_token, phi.architecture) == (4096, 393216, "Phi3ForCausalLM")
    assert (
        phi.image_ref("mcr.microsoft.com/aks/kaito/")
        == "mcr.microsoft.com/aks/kaito/kaito-phi-3-mini-4k-instruct:0.0.2"
    )


@pytest.mark.parametrize(
    ("typo", "meant"),
    [("phi-3-mini-4k-instuct", "phi-3-mini-4k-instruct"), ("falcon", "falcon-7b"), ("Mistral7b", "mistral-7b")],
)
def test_typos_get_a_suggestion(typo: str, meant: str) -> None:
    """A misspelt preset is refused with the name that was meant."""
    with pytest.raises(UnknownPreset) as caught:
        preset(typo)

    assert meant in caught.value.suggestions
    assert meant in str(caught.value)


def test_nonsense_gets_no_suggestion() -> None:
    """A name that resembles nothing gets no far-fetched guess."""
    assert find_preset("zzzzzz") is None
    with pytest.raises(UnknownPreset) as caught:
        preset("zzzzzz")

    assert caught.value.suggestions == ()
    assert caught.value.next_step


@pytest.mark.parametrize(
    ("name", "gpus", "total", "capability"),
    [
        ("Standard_NC6", 1, 12, 3.7),
        ("Standard_NV6", 1, 8, 5.2),
        ("Standard_NC6s_v2", 1, 16, 6.0),
        ("Standard_ND24rs", 4, 96, 6.1),
        ("Standard_NC6s_v3", 1, 16, 7.0),
        ("Standard_ND40rs_v2", 8, 256, 7.0),
        ("Standard_NC64as_T4_v3", 4, 64, 7.5),
        ("Standard_ND96asr_v4", 8, 320, 8.0),
        ("Standard_ND96amsr_A100_v4", 8, 640, 8.0),
        ("Standard_NV36ads_A10_v5", 1, 24, 8.6),
        ("Standard_NV6ads_A10_v5", 1, 4, 8.6),
        ("Standard_NC40ads_H100_v5", 1, 94, 9.0),
        ("Standard_ND96isr_H200_v5", 8, 1128, 9.0),
    ],
)
def test_sku_figures(name: str, gpus: int, total: int, capability: float) -> None:
    """An instance type has the GPUs, memory and compute capability of its generation."""
    found = sku(name)

    assert found is not None
    assert (found.gpus, found.total_gpu_memory, found.compute_capability) == (gpus, total * GIB, capability)
    assert found.per_gpu_memory == found.total_gpu_memory // found.gpus


def test_old_gpus_are_marked() -> None:
    """Every CUDA GPU below compute capability 8.0, and every GPU that is not NVIDIA's, has a note."""
    for item in skus():
        assert bool(item.notes) or not (item.old or not item.nvidia), item.instance_type
    assert sku("standard_nc6s_v3") is sku("Standard_NC6s_v3")
    assert sku("Standard_X") is None


def test_architectures() -> None:
    """The engine's architectures cover every preset of the newer catalogue."""
    known = architectures()

    assert "Phi3ForCausalLM" in known
    assert all(item.architecture in known for item in presets() if item.era == "v0.12")
