"""Indexed Jobs: each completion has a number, and each number is done once. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from manager.types import Obj

from .. import pods as p

INDEX = "batch.kubernetes.io/job-completion-index"


def is_indexed(job: Obj) -> bool:
    """Whether completions are numbered."""
    return p.spec_of(job).get("completionMode") == "Indexed"


def index_of(pod: Obj) -> int | None:
    """The pod's completion index, if it has one."""
    text = p.annotations_of(pod).get(INDEX, "")
    return int(text) if text.isdecimal() else None


def missing_indexes(job: Obj, taken: Sequence[Obj]) -> list[int]:
    """Indexes that no active or succeeded pod has, lowest first."""
    have = {index_of(pod) for pod in taken}
    return [i for i in range(int(p.spec_of(job).get("completions") or 0)) if i not in have]


def spell(indexes: Iterable[int]) -> str:
    """Indexes as the status writes them: ``0,2-4``."""
    runs: list[list[int]] = []
    for index in sorted(set(indexes)):
        if runs and runs[-1][-1] == index - 1:
            runs[-1] = [runs[-1][0], index]
        else:
            runs.append([index])
    return ",".join(str(r[0]) if len(r) == 1 else f"{r[0]}{'-' if r[1] > r[0] + 1 else ','}{r[1]}" for r in runs)


def give_index(pod: Obj, job: Obj, index: int) -> Obj:
    """The pod with its index: as annotation, label, host name and environment variable."""
    metadata, spec = pod["metadata"], pod["spec"]
    name = f"{p.name_of(job)}-{index}"
    variable = {
        "name": "JOB_COMPLETION_INDEX",
        "valueFrom": {"fieldRef": {"fieldPath": f"metadata.annotations['{INDEX}']"}},
    }
    return {
        **pod,
        "metadata": {
            **metadata,
            "generateName": f"{name}-",
            "annotations": {**metadata.get("annotations", {}), INDEX: str(index)},
            "labels": {**metadata.get("labels", {}), INDEX: str(index)},
        },
        "spec": {
            **spec,
            "hostname": spec.get("hostname") or name,
            "containers": [{**c, "env": [*(c.get("env") or ()), variable]} for c in spec.get("containers") or ()],
        },
    }
