"""Server-side tables: what kubectl prints, cell by cell."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from kaito.local.apiserver.registry import Registry, ResourceType, types_from_crd
from kaito.local.apiserver.tables import render_table
from kaito.local.apiserver.tables.durations import human
from kaito.local.apiserver.tables.jsonpath import JsonPath

Obj = dict[str, Any]
NOW = datetime(2024, 5, 1, 12, 0, tzinfo=UTC)


def ago(**delta: float) -> str:
    return (NOW - timedelta(**delta)).strftime("%Y-%m-%dT%H:%M:%SZ")


def row(resource_type: ResourceType | tuple[str, str, str], obj: Obj, *, wide: bool = False) -> dict[str, Any]:
    """The cells of one object by heading."""
    if isinstance(resource_type, tuple):
        found = Registry().lookup(*resource_type)
        assert found is not None
        resource_type = found
    table = render_table(resource_type, [obj], now=NOW)
    pairs = zip(table["columnDefinitions"], table["rows"][0]["cells"], strict=True)
    return {column["name"]: cell for column, cell in pairs if wide or not column["priority"]}


PODS = ("", "v1", "pods")


def state(
    name: str, kind: str, *, restarts: int = 0, ready: bool = False, ended: str | None = None, **more: Any
) -> Obj:
    status: Obj = {"name": name, "ready": ready, "restartCount": restarts, "state": {kind: more}}
    if ended:
        status["lastState"] = {"terminated": {"finishedAt": ended}}
    return status


def pod(phase: str, *statuses: Obj, init: list[Obj] | None = None, deleted: bool = False, **status: Any) -> Obj:
    metadata: Obj = {"name": "p", "creationTimestamp": ago(minutes=5)}
    if deleted:
        metadata["deletionTimestamp"] = ago(seconds=1)
    return {
        "metadata": metadata,
        "spec": {
            "containers": [{"name": "a"}, {"name": "b"}],
            "initContainers": [{"name": "i"}, {"name": "j"}],
        },
        "status": {
            "phase": phase,
            "containerStatuses": list(statuses),
            "initContainerStatuses": init or [],
            **status,
        },
    }


RUNNING = [state("a", "running", ready=True), state("b", "running", ready=True)]
PHASES: list[tuple[Obj, str, str, str]] = [
    (pod("Pending"), "0/2", "Pending", "0"),
    (pod("Pending", init=[state("i", "waiting", reason="PodInitializing")]), "0/2", "Init:0/2", "0"),
    (
        pod("Pending", init=[state("i", "terminated", exitCode=0), state("j", "running", restarts=2)]),
        "0/2",
        "Init:1/2",
        "2",
    ),
    (pod("Pending", init=[state("i", "terminated", exitCode=3)]), "0/2", "Init:ExitCode:3", "0"),
    (
        pod("Pending", init=[state("i", "waiting", reason="CrashLoopBackOff", restarts=1)]),
        "0/2",
        "Init:CrashLoopBackOff",
        "1",
    ),
    (pod("Pending", state("a", "waiting", reason="ContainerCreating")), "0/2", "ContainerCreating", "0"),
    (pod("Pending", state("a", "waiting", reason="ImagePullBackOff")), "0/2", "ImagePullBackOff", "0"),
    (pod("Running", *RUNNING), "2/2", "Running", "0"),
    (
        pod(
            "Running",
            RUNNING[0],
            state("b", "waiting", reason="CrashLoopBackOff", restarts=3, ended=ago(minutes=4)),
        ),
        "1/2",
        "CrashLoopBackOff",
        "3 (4m ago)",
    ),
    (pod("Running", RUNNING[0], state("b", "terminated", exitCode=0, reason="Completed")), "1/2", "NotReady", "0"),
    (
        pod("Running", state("a", "terminated", exitCode=1, signal=9), state("b", "terminated", exitCode=1)),
        "0/2",
        "Signal:9",
        "0",
    ),
    (pod("Succeeded", state("a", "terminated", exitCode=0, reason="Completed")), "0/2", "Completed", "0"),
    (pod("Failed", reason="Evicted"), "0/2", "Evicted", "0"),
    (pod("Running", *RUNNING, deleted=True), "2/2", "Terminating", "0"),
    (pod("Running", *RUNNING, deleted=True, reason="NodeLost"), "2/2", "Unknown", "0"),
    (
        pod("Pending", conditions=[{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]),
        "0/2",
        "SchedulingGated",
        "0",
    ),
]


@pytest.mark.parametrize(("obj", "ready", "status", "restarts"), PHASES)
def test_a_pod_is_summed_up_in_one_word(obj: Obj, ready: str, status: str, restarts: str) -> None:
    """READY, STATUS and RESTARTS follow from phase, containers and deletion."""
    assert row(PODS, obj) == {"Name": "p", "Ready": ready, "Status": status, "Restarts": restarts, "Age": "5m"}


def test_a_sidecar_counts_as_a_container_once_it_has_started() -> None:
    """A restartable init container neither holds the pod up nor is missing from READY."""
    obj = pod("Running", *RUNNING, init=[state("i", "running", ready=True, started=True)])
    obj["spec"]["initContainers"] = [{"name": "i", "restartPolicy": "Always"}]
    obj["status"]["initContainerStatuses"][0]["started"] = True
    cells = row(PODS, obj)
    assert (cells["Ready"], cells["Status"]) == ("3/3", "Running")


def test_the_wide_columns_of_a_pod() -> None:
    """Address, node, nominated node and readiness gates have priority 1."""
    obj = pod("Running", *RUNNING, podIP="127.97.0.3")
    obj["spec"] |= {"nodeName": "n", "readinessGates": [{"conditionType": "G"}]}
    cells = row(PODS, obj, wide=True)
    assert list(cells)[5:] == ["IP", "Node", "Nominated Node", "Readiness Gates"]
    assert list(cells.values())[5:] == ["127.97.0.3", "n", "<none>", "0/1"]


META: Obj = {"name": "x", "creationTimestamp": ago(days=3, hours=4)}
TEMPLATE: Obj = {"spec": {"containers": [{"name": "c", "image": "i:1"}, {"name": "d", "image": "j"}]}}
SELECTOR: Obj = {"matchLabels": {"b": "1", "a": "2"}}
KINDS: list[tuple[tuple[str, str, str], Obj, list[Any]]] = [
    (
        ("apps", "v1", "deployments"),
        {
            "spec": {"replicas": 2, "template": TEMPLATE, "selector": SELECTOR},
            "status": {"readyReplicas": 1, "updatedReplicas": 2},
        },
        ["x", "1/2", 2, 0, "3d4h", "c,d", "i:1,j", "a=2,b=1"],
    ),
    (
        ("apps", "v1", "replicasets"),
        {"spec": {"replicas": 2, "template": TEMPLATE, "selector": SELECTOR}, "status": {"replicas": 1}},
        ["x", 2, 1, 0, "3d4h", "c,d", "i:1,j", "a=2,b=1"],
    ),
    (
        ("apps", "v1", "statefulsets"),
        {"spec": {"replicas": 2, "template": TEMPLATE}, "status": {"readyReplicas": 2}},
        ["x", "2/2", "3d4h", "c,d", "i:1,j"],
    ),
    (
        ("apps", "v1", "daemonsets"),
        {"spec": {"template": TEMPLATE, "selector": SELECTOR}, "status": {"desiredNumberScheduled": 2}},
        ["x", 2, 0, 0, 0, 0, "<none>", "3d4h", "c,d", "i:1,j", "a=2,b=1"],
    ),
    (
        ("batch", "v1", "jobs"),
        {
            "spec": {"completions": 1, "template": TEMPLATE},
            "status": {
                "succeeded": 1,
                "startTime": ago(minutes=10),
                "completionTime": ago(minutes=4, seconds=40),
                "conditions": [{"type": "Complete", "status": "True"}],
            },
        },
        ["x", "Complete", "1/1", "5m20s", "3d4h", "c,d", "i:1,j", "<none>"],
    ),
    (
        ("", "v1", "services"),
        {
            "spec": {
                "type": "ClusterIP",
                "clusterIP": "127.96.0.9",
                "ports": [{"port": 80, "protocol": "TCP"}, {"port": 29500, "protocol": "TCP"}],
                "selector": {"b": "1", "a": "2"},
            }
        },
        ["x", "ClusterIP", "127.96.0.9", "<none>", "80/TCP,29500/TCP", "3d4h", "a=2,b=1"],
    ),
    (
        ("", "v1", "services"),
        {"spec": {"type": "LoadBalancer", "clusterIP": "1.2.3.4", "ports": [{"port": 80, "nodePort": 30001}]}},
        ["x", "LoadBalancer", "1.2.3.4", "<pending>", "80:30001/TCP", "3d4h", "<none>"],
    ),
    (
        ("", "v1", "endpoints"),
        {"subsets": [{"addresses": [{"ip": "1.1.1.1"}, {"ip": "2.2.2.2"}], "ports": [{"port": 1}, {"port": 2}]}]},
        ["x", "1.1.1.1:1,2.2.2.2:1,1.1.1.1:2 + 1 more...", "3d4h"],
    ),
    (
        ("discovery.k8s.io", "v1", "endpointslices"),
        {"addressType": "IPv4", "ports": [{"port": 80}], "endpoints": [{"addresses": ["127.97.0.1"]}]},
        ["x", "IPv4", "80", "127.97.0.1", "3d4h"],
    ),
    (
        ("", "v1", "nodes"),
        {
            "spec": {"unschedulable": True},
            "status": {
                "conditions": [{"type": "Ready", "status": "True"}],
                "nodeInfo": {"kubeletVersion": "v1.36.0", "osImage": "os"},
                "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
            },
        },
        [
            "x",
            "Ready,SchedulingDisabled",
            "<none>",
            "3d4h",
            "v1.36.0",
            "127.0.0.1",
            "<none>",
            "os",
            "<unknown>",
            "<unknown>",
        ],
    ),
    (("", "v1", "namespaces"), {"status": {"phase": "Active"}}, ["x", "Active", "3d4h"]),
    (("", "v1", "configmaps"), {"data": {"a": "1"}, "binaryData": {"b": ""}}, ["x", 2, "3d4h"]),
    (("", "v1", "secrets"), {"type": "Opaque", "data": {"a": "MQ=="}}, ["x", "Opaque", 1, "3d4h"]),
    (("", "v1", "serviceaccounts"), {}, ["x", 0, "3d4h"]),
    (("coordination.k8s.io", "v1", "leases"), {"spec": {"holderIdentity": "me"}}, ["x", "me", "3d4h"]),
    (("rbac.authorization.k8s.io", "v1", "clusterroles"), {}, ["x", META["creationTimestamp"]]),
    (
        ("apiextensions.k8s.io", "v1", "customresourcedefinitions"),
        {},
        ["x", META["creationTimestamp"]],
    ),
    (
        ("", "v1", "persistentvolumeclaims"),
        {
            "spec": {"volumeName": "v", "storageClassName": "s", "volumeMode": "Filesystem"},
            "status": {
                "phase": "Bound",
                "capacity": {"storage": "1Gi"},
                "accessModes": ["ReadWriteMany", "ReadWriteOnce"],
            },
        },
        ["x", "Bound", "v", "1Gi", "RWO,RWX", "s", "<unset>", "3d4h", "Filesystem"],
    ),
    (
        ("apps", "v1", "controllerrevisions"),
        {
            "metadata": META
            | {
                "ownerReferences": [
                    {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "s", "controller": True}
                ]
            },
            "revision": 3,
        },
        ["x", "statefulset.apps/s", 3, "3d4h"],
    ),
]


@pytest.mark.parametrize(("key", "obj", "cells"), KINDS, ids=[case[0][2] for case in KINDS])
def test_built_in_kinds_have_the_cells_of_the_real_server(
    key: tuple[str, str, str], obj: Obj, cells: list[Any]
) -> None:
    """Every cell, wide ones included, in the order of the columns."""
    assert list(row(key, {"metadata": META, **obj}, wide=True).values()) == cells


@pytest.mark.parametrize("key", [(t.group, t.version, t.plural) for t in Registry().all() if "list" in t.verbs])
def test_every_kind_prints_an_empty_object(key: tuple[str, str, str]) -> None:
    """A table never fails for what an object lacks."""
    assert row(key, {"metadata": {"name": "x"}}, wide=True)["Name"] == "x"


def test_events_of_both_groups_print_alike() -> None:
    """The core and the events.k8s.io shape of one event give the same row."""
    core = {
        "metadata": {"name": "e"},
        "involvedObject": {"kind": "Workspace", "name": "w"},
        "reason": "R",
        "message": "text",
        "type": "Warning",
        "lastTimestamp": ago(minutes=2),
        "count": 4,
    }
    new = {
        "metadata": {"name": "e"},
        "regarding": core["involvedObject"],
        "reason": "R",
        "note": "text",
        "type": "Warning",
        "deprecatedLastTimestamp": ago(minutes=2),
        "deprecatedCount": 4,
    }
    cells = row(("", "v1", "events"), core)
    assert list(cells.values()) == ["2m", "Warning", "R", "workspace/w", "text"]
    assert row(("events.k8s.io", "v1", "events"), new) == cells


def custom(columns: list[Obj] | None) -> ResourceType:
    version: Obj = {
        "name": "v1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": {"type": "object"}},
    }
    if columns is not None:
        version["additionalPrinterColumns"] = columns
    spec = {"group": "ex.io", "scope": "Namespaced", "names": {"plural": "ts", "kind": "T"}, "versions": [version]}
    (found,) = types_from_crd({"metadata": {"name": "ts.ex.io"}, "spec": spec})
    return found


THING: Obj = {
    "metadata": {
        "name": "t",
        "creationTimestamp": ago(minutes=5),
        "labels": {"kaito.sh/size": "big"},
    },
    "spec": {"n": 3, "list": ["a", "b"], "map": {"k": "v"}, "flag": True},
    "status": {"conditions": [{"type": "Other", "status": "False"}, {"type": "Ready", "status": "True", "n": 2}]},
}
COLUMNS: list[tuple[str, str, Any]] = [
    ("integer", ".spec.n", 3),
    ("string", ".spec.n", "3"),
    ("integer", ".spec.list", None),
    ("string", '.status.conditions[?(@.type=="Ready")].status', "True"),
    ("string", ".status.conditions[?(@.type=='Ready')].status", "True"),
    ("string", '.status.conditions[?(@.type=="Missing")].status', None),
    ("string", r".metadata.labels.kaito\.sh/size", "big"),
    ("string", ".metadata.labels['kaito.sh/size']", "big"),
    ("string", ".spec.list", '["a","b"]'),
    ("string", ".spec.list[0]", "a"),
    ("string", ".spec.list[-1]", "b"),
    ("string", ".spec.list[*]", "a"),
    ("string", ".spec.map", '{"k":"v"}'),
    ("boolean", ".spec.flag", True),
    ("date", ".metadata.creationTimestamp", "5m"),
    ("date", ".metadata.deletionTimestamp", None),
    ("string", ".spec.missing", None),
]


@pytest.mark.parametrize(("kind", "path", "cell"), COLUMNS)
def test_printer_columns_of_custom_resources(kind: str, path: str, cell: Any) -> None:
    """A CRD's column shows the first match of its JSONPath, typed, and nothing where there is none."""
    resource_type = custom([{"name": "C", "type": kind, "jsonPath": path, "priority": 1}])
    assert row(resource_type, THING, wide=True) == {"Name": "t", "C": cell}


def test_custom_resources_without_columns_have_name_and_age() -> None:
    """The default of a CRD without printer columns."""
    assert row(custom(None), THING) == {"Name": "t", "Age": "5m"}


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("{.spec.list[*]}", ["a", "b"]),
        ("..status", [THING["status"], "False", "True"]),
        (".status.conditions[?(@.n>1)].type", ["Ready"]),
        (".status.conditions[?(@.n)].type", ["Ready"]),
        (".status.conditions[0:1].type", ["Other"]),
        ('.status.conditions[?(@.type!="Ready")].type', ["Other"]),
        (".", [THING]),
    ],
)
def test_json_paths_find_every_match(text: str, matches: list[Any]) -> None:
    """Wildcards, recursion, comparisons and slices, in document order."""
    assert JsonPath(text).find(THING) == matches


@pytest.mark.parametrize("text", [".a[", ".a..", ".a[?(b==1)]", ".a[x]"])
def test_a_json_path_that_makes_no_sense_is_refused(text: str) -> None:
    """Parsing names the problem instead of matching nothing for ever."""
    with pytest.raises(ValueError, match=r"\w"):
        JsonPath(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-3, "<invalid>"),
        (-1, "0s"),
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (125, "2m5s"),
        (599, "9m59s"),
        (600, "10m"),
        (3 * 3600 - 1, "179m"),
        (3 * 3600, "3h"),
        (3 * 3600 + 720, "3h12m"),
        (8 * 3600, "8h"),
        (47 * 3600, "47h"),
        (48 * 3600, "2d"),
        (52 * 3600, "2d4h"),
        (8 * 86400, "8d"),
        (730 * 86400 - 1, "729d"),
        (730 * 86400, "2y"),
        (775 * 86400, "2y45d"),
        (3000 * 86400, "8y"),
    ],
)
def test_durations_are_kubectls(seconds: float, text: str) -> None:
    """Two units while the first is small, one after."""
    assert human(seconds) == text


def test_rows_carry_what_was_asked_for() -> None:
    """``includeObject`` chooses between metadata, the object and nothing; list metadata is passed on."""
    resource_type = custom(None)
    partial = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": THING["metadata"]}
    for include, held in (("Metadata", partial), ("Object", THING), ("None", None)):
        table = render_table(resource_type, [THING], now=NOW, include=include, list_meta={"resourceVersion": "7"})  # type: ignore[arg-type]
        assert table["rows"][0]["object"] == held
        assert table["metadata"] == {"resourceVersion": "7"}
    assert render_table(resource_type, [THING], now=NOW, headings=False)["columnDefinitions"] == []
