"""One row of each catalogue, as frozen values. Sizes are bytes, times are seconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from types import MappingProxyType
from typing import Any, Final, Self

OLD_COMPUTE_CAPABILITY: Final = 8.0  # below it a GPU lacks what the engine's fast paths need


@dataclass(frozen=True, slots=True)
class Tuning:
    """What tuning a preset needs."""

    disk: str
    gpu_count: int
    total_gpu_memory: int
    per_gpu_memory: int

    @classmethod
    def from_obj(cls, obj: Mapping[str, Any]) -> Self:
        return cls(obj["disk"], obj["gpuCount"], obj["totalGpuMemory"], obj["perGpuMemory"])


@dataclass(frozen=True, slots=True)
class Preset:
    """A model that can be served by name.

    Attributes:
        name: what a manifest says; for the newer catalogue the Hugging Face id in lower case.
        family: Phi3, Falcon, ...
        architecture: the class in the model's config.json, for example ``Phi3ForCausalLM``.
        image: repository name below the registry, for example ``kaito-phi-3-mini-4k-instruct``.
        image_tag: the image's tag.
        private: the licence forbids a public image; the user supplies one (accessMode private).
        weights_in_image: the image holds the weights; otherwise they come from the Hugging Face hub.
        weights_bytes: size of the weights, None where it is not known.
        disk: disk to request for the node, a quantity as upstream writes it.
        gpu_count: GPUs that the model needs at least.
        total_gpu_memory: GPU memory that the model needs over all GPUs.
        per_gpu_memory: memory that every single GPU must have; 0 when only the total counts.
        readiness_timeout: how long the server may take to become ready.
        distributed: can be spread over nodes.
        tuning: what tuning needs, None where tuning is not supported.
        context_limit: longest context in tokens, None where it is not known.
        kv_bytes_per_token: KV cache per token, None where it is not known.
        world_size: processes of the original torchrun server, None for all but llama-2.
        run_params: the engine's parameters for this model.
        license: SPDX-like name, None where it is not recorded.
        hf_id, hf_revision: the model on the Hugging Face hub.
        aliases: further names that find it.
        era: "v0.3" or "v0.12", the upstream release whose figures these are; "hub" for one derived on the spot.
        layers, attention_heads, kv_heads: the network's shape, for sharding; None where it is not known.
        attention: MHA, GQA, MQA or MLA; MLA's cache is the same on every GPU of a tensor-parallel group.
        kv_upper_bound: the engine caches less than ``kv_bytes_per_token`` (sliding windows, hybrid layers).
        quantization: the method, None for 16-bit weights.
        tool_parser, reasoning_parser: the engine's parsers for tool calls and thinking.
        gated: the hub wants a token of somebody who accepted the licence.
        corrections: where our figures leave upstream's, one clause each.
    """

    name: str
    family: str
    architecture: str
    image: str
    image_tag: str
    private: bool
    weights_in_image: bool
    weights_bytes: int | None
    disk: str
    gpu_count: int
    total_gpu_memory: int
    per_gpu_memory: int
    readiness_timeout: float
    distributed: bool
    tuning: Tuning | None
    context_limit: int | None
    kv_bytes_per_token: int | None
    world_size: int | None
    run_params: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    license: str | None = None
    hf_id: str | None = None
    hf_revision: str | None = None
    aliases: tuple[str, ...] = ()
    era: str = "v0.3"
    layers: int | None = None
    attention_heads: int | None = None
    kv_heads: int | None = None
    attention: str | None = None
    kv_upper_bound: bool = False
    quantization: str | None = None
    tool_parser: str | None = None
    reasoning_parser: str | None = None
    gated: bool = False
    corrections: tuple[str, ...] = ()

    @property
    def supports_tuning(self) -> bool:
        """Whether an adapter can be trained for it."""
        return self.tuning is not None

    def image_ref(self, registry: str) -> str:
        """The full image reference below ``registry``."""
        return f"{registry.rstrip('/')}/{self.image}:{self.image_tag}"

    @classmethod
    def from_obj(cls, obj: Mapping[str, Any]) -> Self:
        tuning = obj.get("tuning")
        return cls(
            name=obj["name"],
            family=obj["family"],
            architecture=obj["architecture"],
            image=obj["image"],
            image_tag=obj["imageTag"],
            private=obj["private"],
            weights_in_image=obj["weightsInImage"],
            weights_bytes=obj.get("weightsBytes"),
            disk=obj["disk"],
            gpu_count=obj["gpuCount"],
            total_gpu_memory=obj["totalGpuMemory"],
            per_gpu_memory=obj["perGpuMemory"],
            readiness_timeout=obj["readinessTimeout"],
            distributed=obj["distributed"],
            tuning=Tuning.from_obj(tuning) if tuning else None,
            context_limit=obj.get("contextLimit"),
            kv_bytes_per_token=obj.get("kvBytesPerToken"),
            world_size=obj.get("worldSize"),
            run_params=MappingProxyType(dict(obj.get("runParams") or {})),
            license=obj.get("license"),
            hf_id=obj.get("hfId"),
            hf_revision=obj.get("hfRevision"),
            aliases=tuple(obj.get("aliases") or ()),
            era=obj["era"],
            layers=obj.get("layers"),
            attention_heads=obj.get("attentionHeads"),
            kv_heads=obj.get("kvHeads"),
            attention=obj.get("attention"),
            kv_upper_bound=bool(obj.get("kvUpperBound")),
            quantization=obj.get("quantization"),
            tool_parser=obj.get("toolParser"),
            reasoning_parser=obj.get("reasoningParser"),
            gated=bool(obj.get("gated")),
            corrections=tuple(obj.get("corrections") or ()),
        )


@dataclass(frozen=True, slots=True)
class Sku:
    """An instance type and its GPUs.

    Attributes:
        instance_type: the cloud's name, spelled as the cloud does.
        cloud: azure, aws or arc.
        gpus: number of GPUs.
        total_gpu_memory, per_gpu_memory: memory of all GPUs and of one.
        gpu_model: for example "NVIDIA A100".
        compute_capability: CUDA compute capability, None where it is not CUDA or not known.
        nvme: has a local NVMe disk that can hold weights.
        reported_gpu_memory: what the driver reports for one GPU, None where it is what the name says.
        vcpus, memory: of the whole machine; None where it is not recorded.
        partial: has a part of a GPU, handed out by the hypervisor.
        arch: the processor's architecture as Kubernetes names it.
        real_name: what the cloud calls it, where upstream's name is none of the cloud's.
        retired, retired_source: the day (ISO) from which no new one can be had, and where that stands.
        notes: what a user should know before choosing it, one clause each.
    """

    instance_type: str
    cloud: str
    gpus: int
    total_gpu_memory: int
    per_gpu_memory: int
    gpu_model: str
    compute_capability: float | None
    nvme: bool
    notes: tuple[str, ...] = ()
    reported_gpu_memory: int | None = None
    vcpus: int | None = None
    memory: int | None = None
    partial: bool = False
    arch: str = "amd64"
    real_name: str | None = None
    retired: str | None = None
    retired_source: str | None = None

    @property
    def visible_gpu_memory(self) -> int:
        """What a program sees of one GPU's memory."""
        return self.reported_gpu_memory or self.per_gpu_memory

    def is_retired(self, today: date) -> bool:
        """Whether the cloud makes no new ones on that day."""
        return self.retired is not None and today >= date.fromisoformat(self.retired)

    @property
    def nvidia(self) -> bool:
        """Whether the NVIDIA engine image can use it at all."""
        return self.gpu_model.startswith("NVIDIA")

    @property
    def old(self) -> bool:
        """Whether its GPUs are older than what the engine is built for."""
        return self.compute_capability is not None and self.compute_capability < OLD_COMPUTE_CAPABILITY

    @classmethod
    def from_obj(cls, obj: Mapping[str, Any]) -> Self:
        return cls(
            instance_type=obj["instanceType"],
            cloud=obj["cloud"],
            gpus=obj["gpus"],
            total_gpu_memory=obj["totalGpuMemory"],
            per_gpu_memory=obj["perGpuMemory"],
            gpu_model=obj["gpuModel"],
            compute_capability=obj.get("computeCapability"),
            nvme=obj["nvme"],
            notes=tuple(obj.get("notes") or ()),
            reported_gpu_memory=obj.get("reportedGpuMemory"),
            vcpus=obj.get("vcpus"),
            memory=obj.get("memory"),
            partial=bool(obj.get("partial")),
            arch=obj.get("arch", "amd64"),
            real_name=obj.get("realName"),
            retired=obj.get("retired"),
            retired_source=obj.get("retiredSource"),
        )
