"""The tables of what runs pods: Deployments, ReplicaSets, StatefulSets, DaemonSets, Jobs, CronJobs and kin.

In: objects of those kinds. Out: their columns, as data. Numbers that a controller has not written yet are 0.
"""

from __future__ import annotations

from datetime import datetime

from manager.types import Obj

from .cells import (
    NONE,
    UNKNOWN,
    at,
    computed,
    containers,
    field,
    is_true,
    labels,
    number,
    plain,
    selector,
)
from .column import AGE, NAME, Column
from .durations import human, parse, since

_SELECTOR = plain("Selector", lambda obj: selector(at(obj, "spec.selector")), wide=True)


def _ready(obj: Obj) -> str:
    return f"{at(obj, 'status.readyReplicas', 0)}/{at(obj, 'spec.replicas', 0)}"


DEPLOYMENT: list[Column] = [
    NAME,
    plain("Ready", _ready),
    field("Up-to-date", "status.updatedReplicas", 0),
    field("Available", "status.availableReplicas", 0),
    AGE,
    *containers("spec.template"),
    _SELECTOR,
]
REPLICASET: list[Column] = [
    NAME,
    number("Desired", "spec.replicas"),
    number("Current", "status.replicas"),
    number("Ready", "status.readyReplicas"),
    AGE,
    *containers("spec.template"),
    _SELECTOR,
]
REPLICATION_CONTROLLER: list[Column] = [
    *REPLICASET[:-1],
    plain("Selector", lambda obj: labels(at(obj, "spec.selector")), wide=True),
]
STATEFULSET: list[Column] = [NAME, plain("Ready", _ready), AGE, *containers("spec.template")]
DAEMONSET: list[Column] = [
    NAME,
    number("Desired", "status.desiredNumberScheduled"),
    number("Current", "status.currentNumberScheduled"),
    number("Ready", "status.numberReady"),
    number("Up-to-date", "status.updatedNumberScheduled"),
    number("Available", "status.numberAvailable"),
    plain("Node Selector", lambda obj: labels(at(obj, "spec.template.spec.nodeSelector"))),
    AGE,
    *containers("spec.template"),
    _SELECTOR,
]


def _job_status(job: Obj) -> str:
    for kind in ("Complete", "Failed"):
        if is_true(job, kind):
            return kind
    if at(job, "metadata.deletionTimestamp"):
        return "Terminating"
    for kind in ("Suspended", "FailureTarget", "SuccessCriteriaMet"):
        if is_true(job, kind):
            return kind
    return "Running"


def _completions(job: Obj) -> str:
    succeeded = at(job, "status.succeeded", 0)
    wanted = at(job, "spec.completions")
    if wanted is not None:
        return f"{succeeded}/{wanted}"
    parallelism = at(job, "spec.parallelism", 0)
    return f"{succeeded}/1 of {parallelism}" if parallelism > 1 else f"{succeeded}/1"


def _duration(job: Obj, now: datetime) -> str:
    start, end = parse(at(job, "status.startTime")), parse(at(job, "status.completionTime"))
    if start is None:
        return ""
    return human(((end or now) - start).total_seconds())


JOB: list[Column] = [
    NAME,
    plain("Status", _job_status),
    plain("Completions", _completions),
    computed("Duration", _duration),
    AGE,
    *containers("spec.template"),
    _SELECTOR,
]


def _last_schedule(obj: Obj, now: datetime) -> str:
    last = at(obj, "status.lastScheduleTime")
    return since(last, now) if last else NONE


CRONJOB: list[Column] = [
    NAME,
    field("Schedule", "spec.schedule"),
    field("Timezone", "spec.timeZone", NONE),
    plain("Suspend", lambda obj: "True" if at(obj, "spec.suspend", False) else "False", kind="boolean"),
    plain("Active", lambda obj: len(at(obj, "status.active", [])), kind="integer"),
    computed("Last Schedule", _last_schedule),
    AGE,
    *containers("spec.jobTemplate.spec.template"),
    plain("Selector", lambda obj: selector(at(obj, "spec.jobTemplate.spec.selector")), wide=True),
]


def _controller(obj: Obj) -> str:
    for owner in at(obj, "metadata.ownerReferences", []):
        if owner.get("controller"):
            group = str(owner.get("apiVersion", "")).rpartition("/")[0]
            kind = str(owner.get("kind", "")).lower() + (f".{group}" if group else "")
            return f"{kind}/{owner.get('name', '')}"
    return NONE


CONTROLLER_REVISION: list[Column] = [
    NAME,
    plain("Controller", _controller),
    field("Revision", "revision", 0),
    AGE,
]
POD_TEMPLATE: list[Column] = [
    NAME,
    *(Column(column.name, column.cell, description=column.description) for column in containers("template")),
    plain("Pod Labels", lambda obj: labels(at(obj, "template.metadata.labels"))),
]
DISRUPTION_BUDGET: list[Column] = [
    NAME,
    plain("Min Available", lambda obj: str(at(obj, "spec.minAvailable", "N/A"))),
    plain("Max Unavailable", lambda obj: str(at(obj, "spec.maxUnavailable", "N/A"))),
    number("Allowed Disruptions", "status.disruptionsAllowed"),
    AGE,
]


def _targets(obj: Obj) -> str:
    found = []
    statuses = at(obj, "status.currentMetrics", [])
    for index, metric in enumerate(at(obj, "spec.metrics", [])):
        resource = metric.get("resource") or {}
        target = resource.get("target") or {}
        status = at(statuses[index], "resource.current", {}) if index < len(statuses) else {}
        if "averageUtilization" in target:
            current = status.get("averageUtilization")
            shown = UNKNOWN if current is None else f"{current}%"
            found.append(f"{resource.get('name')}: {shown}/{target['averageUtilization']}%")
        else:
            wanted = target.get("averageValue") or target.get("value") or UNKNOWN
            found.append(f"{status.get('averageValue') or status.get('value') or UNKNOWN}/{wanted}")
    if len(found) > 2:
        return f"{', '.join(found[:2])} + {len(found) - 2} more..."
    return ", ".join(found) or NONE


AUTOSCALER: list[Column] = [
    NAME,
    plain(
        "Reference",
        lambda obj: f"{at(obj, 'spec.scaleTargetRef.kind', '')}/{at(obj, 'spec.scaleTargetRef.name', '')}",
    ),
    plain("Targets", _targets),
    plain("MinPods", lambda obj: str(at(obj, "spec.minReplicas", "<unset>"))),
    field("MaxPods", "spec.maxReplicas", 0),
    field("Replicas", "status.currentReplicas", 0),
    AGE,
]
