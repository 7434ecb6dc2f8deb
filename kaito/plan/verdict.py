"""What plan says about one Workspace, as a value; the table and the JSON are made of it.

In: what ``judge`` found. Out: ``Verdict`` and the exit code. The JSON's field names are a contract: add, and never
rename. Sizes are bytes, money is per hour.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from api.catalog import Preset, Sku
from api.sizing import Option, Passed, Price, Sizing, TuningFit, cost
from kaito.plan.rehearsal import Step

Obj = dict[str, Any]


class Severity(StrEnum):
    """How bad a finding is. An INVALID manifest is refused; with an ERROR it is admitted and does not work."""

    INVALID = "invalid"
    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to know. ``code`` is a stable word; ``next`` is what to type or change, possibly empty."""

    severity: Severity
    code: str
    message: str
    next: str = ""

    def to_obj(self) -> Obj:
        return {"severity": str(self.severity), "code": self.code, "message": self.message, "next": self.next}


@dataclass(frozen=True, slots=True)
class Verdict:
    """All of it.

    Attributes:
        half: inference, tuning, template; empty where the manifest has none of them.
        chosen_by: manifest, price, memory; empty where there is no instance type.
        nodes: how many are asked for.
        alternatives: instance types that would do, with their prices, the best first.
        runs: the operator of this release lays the model out like that on them.
        passed: those that were looked at and not taken, and why.
    """

    name: str
    namespace: str
    half: str
    preset: Preset | None
    instance_type: str
    sku: Sku | None
    chosen_by: str
    nodes: int
    sizing: Sizing | None
    tuning: TuningFit | None
    price: Price | None
    spot: bool
    steps: tuple[Step, ...]
    findings: tuple[Finding, ...]
    alternatives: tuple[Option, ...]
    runs: bool
    passed: tuple[Passed, ...]

    @property
    def word(self) -> str:
        """The verdict in a word or two."""
        worst = {item.severity for item in self.findings}
        if Severity.INVALID in worst:
            return "is refused"
        if Severity.ERROR in worst:
            return "does not work"
        return "works, with warnings" if Severity.WARNING in worst else "works"

    @property
    def fits(self) -> bool:
        """Whether it would run as it stands."""
        return not {Severity.INVALID, Severity.ERROR} & {item.severity for item in self.findings}

    def per_hour(self, *, spot: bool | None = None) -> float | None:
        """What its nodes cost per hour, None where that is not known."""
        return cost(self.nodes, self.price, spot=self.spot if spot is None else spot)

    def to_obj(self) -> Obj:
        """JSON with stable names."""
        return {
            "name": self.name,
            "namespace": self.namespace,
            "kind": self.half,
            "fits": self.fits,
            "verdict": self.word,
            "findings": [item.to_obj() for item in self.findings],
            "model": _model(self.preset),
            "nodes": _nodes(self),
            "sizing": sizing_obj(self.sizing) if self.sizing else None,
            "tuning": None
            if self.tuning is None
            else {
                "possible": self.tuning.possible,
                "comfortable": self.tuning.comfortable,
                "floorPerGpu": self.tuning.floor,
                "recommendedPerGpu": self.tuning.recommended,
                "why": self.tuning.why,
                "batchSize": self.tuning.batch,
                "bytesPerSample": self.tuning.per_sample,
            },
            "cost": _cost(self),
            "steps": [
                {"order": number, "verb": step.verb, "kind": step.kind, "name": step.name, "detail": step.detail}
                for number, step in enumerate(self.steps, 1)
            ],
            "objects": [step.body for step in self.steps if step.body is not None],
            "alternatives": [_alternative(item) | {"runs": self.runs} for item in self.alternatives],
            "passedOver": [{"instanceType": item.instance_type, "reason": item.reason} for item in self.passed],
        }


def exit_code(verdicts: Iterable[Verdict]) -> int:
    """0: all work; 1: one does not; 2: one is refused."""
    code = 0
    for verdict in verdicts:
        severities = {item.severity for item in verdict.findings}
        code = max(code, 2 if Severity.INVALID in severities else 1 if not verdict.fits else 0)
    return code


def _model(preset: Preset | None) -> Obj | None:
    if preset is None:
        return None
    return {
        "preset": preset.name,
        "era": preset.era,
        "hfId": preset.hf_id,
        "license": preset.license,
        "gated": preset.gated,
        "weightsBytes": preset.weights_bytes,
        "weightsInImage": preset.weights_in_image,
        "contextLimit": preset.context_limit,
        "kvBytesPerToken": preset.kv_bytes_per_token,
        "kvUpperBound": preset.kv_upper_bound,
        "attention": preset.attention,
        "quantization": preset.quantization,
    }


def _nodes(verdict: Verdict) -> Obj:
    sku = verdict.sku
    return {
        "instanceType": verdict.instance_type or None,
        "chosenBy": verdict.chosen_by or None,
        "count": verdict.nodes,
        "gpusPerNode": sku.gpus if sku else None,
        "gpuModel": sku.gpu_model if sku else None,
        "gpuMemory": sku.per_gpu_memory if sku else None,
        "computeCapability": sku.compute_capability if sku else None,
        "vcpus": sku.vcpus if sku else None,
        "memory": sku.memory if sku else None,
        "nvme": sku.nvme if sku else None,
        "retired": sku.retired if sku else None,
        "disk": verdict.preset.disk if verdict.preset else None,
    }


def sizing_obj(sizing: Sizing) -> Obj:
    """A sizing as JSON, with every figure that led to it."""
    layout, budget = sizing.layout, sizing.budget
    return {
        "fits": sizing.fits,
        "why": sizing.why,
        "contextWanted": sizing.context,
        "maxModelLen": sizing.max_model_len,
        "cacheTokens": sizing.cache_tokens,
        "nodes": sizing.nodes,
        "gpus": sizing.gpus,
        "tensorParallel": layout.tensor,
        "pipelineParallel": layout.pipeline,
        "dataParallel": layout.data,
        "perGpu": {
            "memory": budget.memory,
            "usable": budget.usable,
            "weights": budget.weights,
            "overhead": budget.overhead,
            "cache": budget.cache,
            "cachePerToken": budget.per_token,
            "cacheTokens": budget.tokens,
        },
        "rejected": [
            {"nodes": item.layout.nodes, "layout": str(item.layout), "reason": item.rejected}
            for item in sizing.rejected
        ],
    }


def _cost(verdict: Verdict) -> Obj | None:
    price = verdict.price
    if price is None:
        return None
    return {
        "currency": price.currency,
        "perHour": verdict.per_hour(spot=False),
        "perHourSpot": verdict.per_hour(spot=True),
        "region": price.region,
        "date": price.date,
        "source": price.source,
    }


def _alternative(item: Option) -> Obj:
    return {
        "instanceType": item.sku.instance_type,
        "nodes": item.sizing.nodes,
        "layout": str(item.sizing.layout),
        "maxModelLen": item.sizing.max_model_len,
        "perHour": item.per_hour,
    }
