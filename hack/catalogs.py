"""Turns the collected upstream tables into the packaged catalogues of ``api/catalog``.

In: a folder with ``kaito_presets.json`` and ``azure_skus.json`` (figures collected from upstream releases).
Out: three JSON documents as text. Run through ``hack/generate.py --data FOLDER``. The seed's era decides: the
17 presets of v0.3 keep their names and v0.3.1's figures; what that era did not record (weights, context, KV
cache, architecture) is taken from the newer catalogue where it is the same model on the hub.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from api.quantity import GIB, to_bytes

Obj = dict[str, Any]

BASE_IMAGE: Final = "kaito-base"

# Of the v0.3 models that the newer catalogue lacks: architecture, parameters (published counts; weights are
# two bytes each) and context length from the model's config.json.
_OLD_MODELS: Final[dict[str, tuple[str, int, int, str | None]]] = {
    "falcon-7b": ("FalconForCausalLM", 7_217_189_760, 2048, "apache-2.0"),
    "falcon-7b-instruct": ("FalconForCausalLM", 7_217_189_760, 2048, "apache-2.0"),
    "falcon-40b": ("FalconForCausalLM", 41_303_293_952, 2048, "apache-2.0"),
    "falcon-40b-instruct": ("FalconForCausalLM", 41_303_293_952, 2048, "apache-2.0"),
    "llama-2-7b": ("LlamaForCausalLM", 6_738_415_616, 4096, "llama2"),
    "llama-2-7b-chat": ("LlamaForCausalLM", 6_738_415_616, 4096, "llama2"),
    "llama-2-13b": ("LlamaForCausalLM", 13_015_864_320, 4096, "llama2"),
    "llama-2-13b-chat": ("LlamaForCausalLM", 13_015_864_320, 4096, "llama2"),
    "llama-2-70b": ("LlamaForCausalLM", 68_976_648_192, 4096, "llama2"),
    "llama-2-70b-chat": ("LlamaForCausalLM", 68_976_648_192, 4096, "llama2"),
    "phi-2": ("PhiForCausalLM", 2_779_683_840, 2048, "mit"),
}

_FALCON_40B_DISK: Final = "400Gi"  # upstream wrote "400", which is 400 bytes; the model needs the unit

_COMPUTE_CAPABILITY: Final = {
    "NVIDIA K80": 3.7,
    "NVIDIA M60": 5.2,
    "NVIDIA P100": 6.0,
    "NVIDIA P40": 6.1,
    "NVIDIA V100": 7.0,
    "NVIDIA T4": 7.5,
    "NVIDIA A100": 8.0,
    "NVIDIA A10": 8.6,
    "NVIDIA A10G": 8.6,
    "NVIDIA A2": 8.6,
    "NVIDIA A16": 8.6,
    "NVIDIA L4": 8.9,
    "NVIDIA H100": 9.0,
    "NVIDIA H200": 9.0,
}

# The v0.3 webhook table names no GPU model; the first pattern that fits decides.
_AZURE_MODELS: Final = (
    (r"_A100_v4$|^Standard_ND96asr_v4$", "NVIDIA A100"),
    (r"_A10_v5$", "NVIDIA A10"),
    (r"_T4_v3$", "NVIDIA T4"),
    (r"^Standard_NV\d+s_v3$|^Standard_NV\d+$", "NVIDIA M60"),
    (r"^Standard_NC\d+r?s_v3$|^Standard_ND40rs_v2$", "NVIDIA V100"),
    (r"^Standard_NC\d+r?s_v2$", "NVIDIA P100"),
    (r"^Standard_ND\d+r?s$", "NVIDIA P40"),
    (r"^Standard_NC\d+r?$", "NVIDIA K80"),
)


def documents(data: Path) -> Iterator[tuple[str, str]]:
    """``(file name, text)`` of every catalogue."""
    collected: Obj = json.loads((data / "kaito_presets.json").read_text(encoding="utf-8"))
    machines: Obj = json.loads((data / "azure_skus.json").read_text(encoding="utf-8"))
    yield "presets.json", _text([*_old_presets(collected), *_new_presets(collected)])
    yield "architectures.json", _text(sorted(collected["v0_12"]["supportedArchitectures"]))
    yield "skus.json", _text(list(_skus(machines)))


def _text(rows: list[Any]) -> str:
    """One row per line: a change of one figure is a change of one line."""
    return "[\n" + ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n]\n"


# ------------------------------------------------------------------------------ presets


def _old_presets(collected: Obj) -> Iterator[Obj]:
    newer = {model["hfId"].lower(): model for model in collected["v0_12"]["models"]}
    for entry in collected["history"]["v0.3.1"]:
        name: str = entry["name"]
        inference: Obj = entry["inference"]
        hf_id, revision = _hub(entry["hfVersion"])
        model = newer.get((hf_id or "").lower())
        if model is not None:
            architecture = str(model["architectures"][0])
            weights = to_bytes(model["modelFileSize"])
            context, kv, license_ = model["modelTokenLimit"], model["bytesPerToken"], model["license"]
        else:
            architecture, parameters, context, license_ = _OLD_MODELS[name]
            weights, kv = 2 * parameters, None
        disk = str(inference["diskStorageRequirement"])
        yield {
            "name": name,
            "era": "v0.3",
            "family": inference["modelFamilyName"],
            "architecture": architecture,
            "image": f"kaito-{name}",
            "imageTag": inference.get("imageTag") or entry["catalogTag"],
            "private": inference["imageAccessMode"] == "private",
            "weightsInImage": True,
            "weightsBytes": weights,
            "disk": _FALCON_40B_DISK if disk == "400" else disk,
            "gpuCount": int(inference["gpuCountRequirement"]),
            "totalGpuMemory": to_bytes(inference["totalGPUMemoryRequirement"]),
            "perGpuMemory": to_bytes(inference["perGPUMemoryRequirement"]),
            "readinessTimeout": 60 * inference["readinessTimeoutMin"],
            "distributed": entry["supportsDistributed"],
            "tuning": _old_tuning(entry["tuning"]),
            "contextLimit": context,
            "kvBytesPerToken": kv,
            "worldSize": inference.get("worldSize"),
            "runParams": inference["modelRunParams"],
            "license": license_,
            "hfId": hf_id,
            "hfRevision": revision,
            "aliases": [],
        }


def _old_tuning(tuning: Obj | None) -> Obj | None:
    if tuning is None:
        return None
    disk = str(tuning["diskStorageRequirement"])
    return {
        "disk": disk,
        "gpuCount": int(tuning["gpuCountRequirement"]),
        "totalGpuMemory": to_bytes(tuning["totalGPUMemoryRequirement"]),
        "perGpuMemory": to_bytes(tuning["perGPUMemoryRequirement"]),
    }


def _new_presets(collected: Obj) -> Iterator[Obj]:
    base: Obj = collected["v0_12"]
    revisions = {
        str(hf_id).lower(): revision
        for hf_id, revision in (_hub(row.get("version")) for row in base["supportedModelsYaml"])
        if hf_id
    }
    for model in base["models"]:
        short = str(model["hfId"]).rsplit("/", 1)[-1].lower()
        weights = to_bytes(model["modelFileSize"])
        tuning = next(
            (base["tuning"][alias] for alias in (short, *model["legacyAliases"]) if alias in base["tuning"]), None
        )
        yield {
            "name": model["registryKey"],
            "era": "v0.12",
            "family": _family(short),
            "architecture": model["architectures"][0] if model["architectures"] else "",
            "image": BASE_IMAGE,
            "imageTag": base["baseImage"]["tag"],
            "private": False,
            "weightsInImage": False,
            "weightsBytes": weights,
            "disk": model["diskStorageRequirement"],
            "gpuCount": 1,  # the least; the plan counts from the weights and the instance type
            "totalGpuMemory": weights,
            "perGpuMemory": 0,
            "readinessTimeout": model["readinessTimeoutSeconds"],
            "distributed": model["supportsDistributed"],
            "tuning": None
            if tuning is None
            else {
                "disk": tuning["disk"],
                "gpuCount": 1,
                "totalGpuMemory": to_bytes(tuning["totalGPUMem"]),
                "perGpuMemory": 0,
            },
            "contextLimit": model["modelTokenLimit"],
            "kvBytesPerToken": model["bytesPerToken"],
            "worldSize": None,
            "runParams": {key: _param(value) for key, value in model["vllmModelRunParams"].items()},
            "license": model["license"],
            "hfId": model["hfId"],
            "hfRevision": revisions.get(str(model["hfId"]).lower()),
            "aliases": sorted({short, *model["legacyAliases"]}),
        }


def _param(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _family(short: str) -> str:
    """The first word of a model's name, with its version: "qwen2.5-coder-7b-instruct" → "qwen2.5"."""
    return short.removeprefix("nvidia-").split("-", 1)[0]


def _hub(version: str | None) -> tuple[str | None, str | None]:
    match = re.fullmatch(r"https://huggingface\.co/([^/]+/[^/]+)/commit/([0-9a-f]+)", version or "")
    return (match.group(1), match.group(2)) if match else (None, None)


# ------------------------------------------------------------------------------ instance types


def _skus(machines: Obj) -> Iterator[Obj]:
    """Newest figures first; an older table only adds what the newer ones dropped."""
    azure_v03 = [
        row for row in machines["v0_3"]["azure_sku_handler"] if row["instanceType"] != "Standard_ND96amsr_A100_v4"
    ]
    tables = [
        ("azure", machines["v0_12"]["azure"]),
        ("azure", machines["v0_8"]["azure"]),
        ("azure", machines["v0_3"]["azure_webhook_table"]),
        ("azure", azure_v03),  # without the row that upstream tabulated as 80 GiB; it has 640
        ("aws", machines["v0_12"]["aws"]),
        ("aws", machines["v0_8"]["aws"]),
        ("aws", machines["v0_3"]["aws_sku_handler"]),
        ("arc", machines["v0_12"]["arc"]),
        ("arc", machines["v0_8"]["arc"]),
    ]
    seen: set[str] = set()
    for cloud, rows in tables:
        for row in rows:
            key = str(row["instanceType"]).lower()
            if key in seen:
                continue
            seen.add(key)
            yield _sku(cloud, row)


def _sku(cloud: str, row: Obj) -> Obj:
    instance_type: str = row["instanceType"]
    model = row.get("gpuModel") or next(
        name for pattern, name in _AZURE_MODELS if re.search(pattern, instance_type)
    )
    total = math.ceil(row["totalGpuMemGiB"] * GIB)
    capability = row.get("cudaComputeCapability") or _COMPUTE_CAPABILITY.get(model)
    return {
        "instanceType": instance_type,
        "cloud": cloud,
        "gpus": row["gpuCount"],
        "totalGpuMemory": total,
        "perGpuMemory": total // row["gpuCount"],
        "gpuModel": model,
        "computeCapability": capability,
        "nvme": row["nvmeDisk"],
        "notes": _notes(instance_type, model, capability),
    }


def _notes(instance_type: str, model: str, capability: float | None) -> list[str]:
    notes: list[str] = []
    if re.match(r"Standard_NV(6|12|18)ads_A10_v5$", instance_type):
        notes.append("it has a part of an A10, shared by the hypervisor")
    if not model.startswith("NVIDIA"):
        notes.append("the engine image is built for NVIDIA GPUs and does not run here")
    elif capability is not None and capability < 7.0:
        notes.append("the engine needs compute capability 7.0 at least and does not run here")
    elif capability is not None and capability < 7.5:
        notes += [
            "there is no bfloat16 (float16 is used instead), no FlashAttention 2 and no FP8",
            "the published engine builds (CUDA 13) hold no code for it: the model server needs an image "
            "built for CUDA 12.6 with this compute capability",
        ]
    elif capability is not None and capability < 8.0:
        notes.append("there is no bfloat16 (float16 is used instead), no FlashAttention 2 and no FP8")
    return notes
