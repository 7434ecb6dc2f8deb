"""The rows of the instance types and of their prices: upstream's tables, joined with what they lack.

In: upstream's tables of several releases. Out: rows for ``skus.json``, and the text of ``prices.json``. Newest
figures go first; an older table only adds what the newer ones dropped.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Any, Final

from api.quantity import GIB
from hack.cloud_facts import (
    ARM,
    AZURE,
    AZURE_PRICE_DATE,
    AZURE_PRICE_SOURCE,
    AZURE_RETIRED,
    MISSPELT,
    PARTIAL,
    REPORTED_MIB,
)

Obj = dict[str, Any]

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


def as_text(rows: list[Any]) -> str:
    """One row per line: a change of one figure is a change of one line."""
    return "[\n" + ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n]\n"


def skus(machines: Obj) -> Iterator[Obj]:
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
    each = total // row["gpuCount"]
    vcpus, memory, *_ = AZURE.get(instance_type, (None, None))
    reported = REPORTED_MIB.get((model, each // GIB))
    retired = next((item for item in AZURE_RETIRED if cloud == "azure" and re.match(item[0], instance_type)), None)
    return {
        "instanceType": instance_type,
        "cloud": cloud,
        "gpus": row["gpuCount"],
        "totalGpuMemory": total,
        "perGpuMemory": each,
        "reportedGpuMemory": reported * 1024**2 if reported else None,
        "gpuModel": model,
        "computeCapability": capability,
        "nvme": row["nvmeDisk"],
        "vcpus": vcpus,
        "memory": memory * GIB if memory else None,
        "partial": bool(re.match(PARTIAL, instance_type)),
        "arch": "arm64" if re.match(ARM, instance_type) else "amd64",
        "realName": MISSPELT.get(instance_type),
        "retired": retired[1] if retired else None,
        "retiredSource": retired[2] if retired else None,
        "notes": _notes(instance_type, model, capability),
    }


def prices() -> str:
    rows = [
        {"instanceType": name, "region": region, "onDemand": on_demand, "spot": spot}
        for name, (_, _, region, on_demand, spot) in AZURE.items()
        if on_demand is not None
    ]
    head = {"currency": "USD", "date": AZURE_PRICE_DATE, "source": AZURE_PRICE_SOURCE}
    return json.dumps(head)[:-1] + ', "prices": ' + as_text(rows).rstrip() + "}\n"


def _notes(instance_type: str, model: str, capability: float | None) -> list[str]:
    notes: list[str] = []
    if instance_type in MISSPELT:
        notes.append(f"the cloud spells it {MISSPELT[instance_type]}")
    if re.match(ARM, instance_type):
        notes.append("its processor is Arm, and the operator asks for amd64 nodes")
    if re.match(PARTIAL, instance_type):
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
