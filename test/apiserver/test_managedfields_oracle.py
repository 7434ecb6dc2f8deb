"""The same writes against the real kube-apiserver: ownership, merged content and conflicts must be equal.

Compared are the field sets of every manager, what is stored and the text of conflicts. Cases keep away from what
differs by release: 1.20 orders merged lists otherwise, does not own empty maps, and merges a Service's selector.
"""

from __future__ import annotations

import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from copy import deepcopy
from datetime import UTC, datetime
from typing import Any

import pytest

from kaito.local.apiserver.managedfields import ApplyConflict, apply_patch, record_update
from kaito.local.apiserver.patching import json_merge, strategic_merge
from kaito.local.apiserver.registry import Registry
from kaito.local.apiserver.schema import Schema
from kaito.local.apiserver.tables import render_table
from manager.testing.controlplane import ADMIN_TOKEN, ControlPlane, assets

Obj = dict[str, Any]
Request = Callable[..., tuple[int, Obj]]
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"

pytestmark = pytest.mark.skipif(assets() is None, reason="KUBEBUILDER_ASSETS names no real kube-apiserver")


@pytest.fixture(scope="module")
def real() -> Iterator[Request]:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with ControlPlane.start(controllers=False) as plane:

        def request(
            method: str, path: str, body: Obj | None = None, kind: str = "application/json", accept: str = "*/*"
        ) -> tuple[int, Obj]:
            headers = {"Authorization": f"Bearer {ADMIN_TOKEN}", "Content-Type": kind, "Accept": accept}
            data = None if body is None else json.dumps(body).encode()
            asked = urllib.request.Request(plane.server + path, data=data, method=method, headers=headers)
            try:
                with urllib.request.urlopen(asked, context=context, timeout=20) as reply:
                    return reply.status, json.loads(reply.read())
            except urllib.error.HTTPError as error:
                with error:
                    return error.code, json.loads(error.read())

        yield request


CONTAINER: Obj = {
    "name": "c",
    "image": "i:1",
    "imagePullPolicy": "IfNotPresent",
    "terminationMessagePath": "/dev/termination-log",
    "terminationMessagePolicy": "File",
    "ports": [{"containerPort": 80, "protocol": "TCP"}],
    "env": [{"name": "A", "value": "1"}],
    "resources": {"limits": {"cpu": "1"}},
}


def deployment(containers: list[Obj] | None = None, **spec: Any) -> Obj:
    """A Deployment with every default written out, so that defaulting plays no part."""
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "d", "namespace": "default", "labels": {"app": "x"}},
        "spec": {
            "replicas": 2,
            "revisionHistoryLimit": 10,
            "progressDeadlineSeconds": 600,
            "selector": {"matchLabels": {"app": "x"}},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "template": {
                "metadata": {"labels": {"app": "x"}},
                "spec": {
                    "containers": containers or [CONTAINER],
                    "dnsPolicy": "ClusterFirst",
                    "restartPolicy": "Always",
                    "schedulerName": "default-scheduler",
                    "terminationGracePeriodSeconds": 30,
                },
            },
            **spec,
        },
    }


def without(obj: Obj, *paths: str) -> Obj:
    result = deepcopy(obj)
    for path in paths:
        *way, last = path.split(".")
        place: Any = result
        for step in way:
            place = place[int(step)] if isinstance(place, list) else place[step]
        del place[last]
    return result


def config_map(data: dict[str, str], **metadata: Any) -> Obj:
    meta = {"name": "m", "namespace": "default", **metadata}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data}


D = deployment()
ENV = "spec.template.spec.containers.0.env"
WHEN = "2024-01-01T00:00:00Z"
CONDITION = {"type": "Available", "status": "True", "reason": "r", "message": "m"}
STATUS = {"replicas": 2, "conditions": [{**CONDITION, "lastTransitionTime": WHEN, "lastUpdateTime": WHEN}]}
Step = tuple[str, str, Obj]
CASES: dict[str, list[Step]] = {
    "create": [("create", "m", D)],
    "apply again": [("apply", "a", D), ("apply", "a", D)],
    "drop a field": [("apply", "a", D), ("apply", "a", without(D, ENV, "metadata.labels"))],
    "drop a shared field": [("apply", "a", D), ("apply", "b", D), ("apply", "a", without(D, ENV))],
    "drop what an updater owns": [
        ("create", "m", D),
        ("apply", "a", D),
        ("apply", "a", without(D, "spec.replicas")),
    ],
    "conflict": [("create", "m", D), ("apply", "a", deployment(replicas=5))],
    "two conflicts": [
        ("create", "m", D),
        ("apply", "a", deployment([{**CONTAINER, "image": "i:2"}], replicas=5)),
    ],
    "force": [("create", "m", D), ("force", "a", deployment(replicas=5))],
    "update takes a field": [("apply", "a", D), ("merge", "u", {"spec": {"replicas": 7}})],
    "update removes fields": [
        ("apply", "a", D),
        (
            "merge",
            "u",
            {"spec": {"template": {"spec": {"containers": [without({"c": CONTAINER}, "c.env")["c"]]}}}},
        ),
    ],
    "add a container": [
        ("create", "m", D),
        ("apply", "a", without(deployment([{**CONTAINER, "name": "c2"}]), "spec.replicas")),
    ],
    "labels and annotations": [
        ("create", "m", D),
        ("merge", "u", {"metadata": {"labels": {"z": "1"}, "annotations": {"q": "r"}}}),
    ],
    "strategic": [
        ("create", "m", D),
        (
            "strategic",
            "u",
            {
                "spec": {
                    "template": {"spec": {"containers": [{"name": "c", "env": [{"name": "B", "value": "2"}]}]}}
                }
            },
        ),
    ],
    "nothing changes": [("create", "m", D), ("merge", "u", {"spec": {"replicas": 2}})],
    "status": [("create", "m", D), ("status", "ctl", {"status": STATUS})],
    "sets and maps": [
        ("apply", "a", config_map({"a": "1", "b": "2"}, finalizers=["a.b/c"])),
        ("apply", "b", config_map({"a": "1", "z": "q"}, finalizers=["x.y/z"])),
        ("apply", "a", config_map({"b": "3"})),
        ("merge", "u", {"metadata": {"finalizers": None}}),
    ],
}
PATHS = {
    "Deployment": "/apis/apps/v1/namespaces/default/deployments",
    "ConfigMap": "/api/v1/namespaces/default/configmaps",
}
KINDS = {
    "apply": "application/apply-patch+yaml",
    "force": "application/apply-patch+yaml",
    "merge": "application/merge-patch+json",
    "status": "application/merge-patch+json",
    "strategic": "application/strategic-merge-patch+json",
}


def managed(obj: Obj) -> list[Any]:
    entries = obj["metadata"].get("managedFields", [])
    return sorted(
        ([one["manager"], one["operation"], one["fieldsV1"]] for one in entries), key=lambda one: (one[0], one[1])
    )


def content(obj: Obj) -> Obj:
    rest = deepcopy({key: value for key, value in obj.items() if key not in ("metadata", "status")})
    template = rest.get("spec", {}).get("template", {})
    template.get("metadata", {}).pop("creationTimestamp", None)  # releases before 1.34 write a null here
    template.get("spec", {}).pop("securityContext", None)  # a default that cannot be written: 1.20 owns no empties
    return rest


def written(verb: str, live: Obj, body: Obj, schema: Schema) -> Obj:
    """The object that a create or a patch stores."""
    if verb == "strategic":
        return strategic_merge(live, body, schema)
    new = deepcopy(body) if verb == "create" else json_merge(live, body)
    if verb == "create" and "template" in new.get("spec", {}):
        new["spec"]["template"]["spec"]["securityContext"] = {}  # the default that 1.20 adds
    return new


@pytest.mark.parametrize("name", CASES)
def test_writes_have_the_result_of_the_real_server(real: Request, name: str) -> None:
    """Step by step, the real server and ours agree on content, ownership and conflicts."""
    steps = CASES[name]
    first = steps[0][2]
    path = PATHS[first["kind"]]
    one = f"{path}/{first['metadata']['name']}"
    group, _, version = first["apiVersion"].rpartition("/")
    resource_type = Registry().by_kind(group, version, first["kind"])
    assert resource_type is not None
    assert resource_type.schema is not None
    live: Obj | None = None
    try:
        for verb, manager, body in steps:
            query = f"?fieldManager={manager}" + ("&force=true" if verb == "force" else "")
            if verb == "create":
                code, theirs = real("POST", path + query, body)
            else:
                where = f"{one}/status" if verb == "status" else one
                code, theirs = real("PATCH", where + query, body, KINDS[verb])
            common: dict[str, Any] = {
                "resource_type": resource_type,
                "subresource": None,
                "now": "2024-01-01T00:00:00Z",
            }
            try:
                if verb in ("apply", "force"):
                    ours = apply_patch(live, body, manager=manager, force=verb == "force", **common)
                else:
                    new = written(verb, live or {}, body, resource_type.schema)
                    ours = record_update(live, new, manager=manager, **common)
            except ApplyConflict as conflict:
                assert code == 409
                assert (str(conflict), conflict.causes) == (theirs["message"], theirs["details"]["causes"])
                continue
            assert code in (200, 201), theirs
            assert managed(ours) == managed(theirs)
            assert content(ours) == content(theirs)
            live = theirs
    finally:
        real("DELETE", one)


TABLES: list[tuple[str, Obj, Obj | None]] = [
    (PATHS["Deployment"], D, {"replicas": 2, "readyReplicas": 1, "updatedReplicas": 2}),
    (
        "/api/v1/nodes",
        {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": "n", "labels": {"node-role.kubernetes.io/gpu": ""}},
            "spec": {"unschedulable": True},
        },
        {
            "conditions": [{"type": "Ready", "status": "True"}],
            "addresses": [{"type": "InternalIP", "address": "1.1.1.1"}],
        },
    ),
    (
        "/api/v1/namespaces/default/services",
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "s"},
            "spec": {
                "ports": [{"port": 80, "name": "a"}, {"port": 29500, "name": "b"}],
                "selector": {"b": "1", "a": "2"},
            },
        },
        None,
    ),
    (
        "/api/v1/namespaces/default/endpoints",
        {
            "apiVersion": "v1",
            "kind": "Endpoints",
            "metadata": {"name": "e"},
            "subsets": [
                {
                    "addresses": [{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}],
                    "ports": [{"port": 80, "name": "a"}, {"port": 81, "name": "b"}],
                }
            ],
        },
        None,
    ),
    (
        "/apis/rbac.authorization.k8s.io/v1/namespaces/default/roles",
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "r"}, "rules": []},
        None,
    ),
    (
        "/apis/coordination.k8s.io/v1/namespaces/default/leases",
        {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": "l"},
            "spec": {"holderIdentity": "me"},
        },
        None,
    ),
    (
        "/api/v1/namespaces/default/events",
        {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": "ev", "namespace": "default"},
            "involvedObject": {"kind": "Pod", "name": "p", "namespace": "default"},
            "reason": "R",
            "message": " m ",
            "type": "Normal",
            "source": {"component": "c"},
            "firstTimestamp": "2024-01-01T00:00:00Z",
            "lastTimestamp": "2024-01-01T01:00:00Z",
            "count": 3,
        },
        None,
    ),
]


@pytest.mark.parametrize(("path", "obj", "status"), TABLES, ids=[case[1]["kind"] for case in TABLES])
def test_tables_have_the_columns_and_cells_of_the_real_server(
    real: Request, path: str, obj: Obj, status: Obj | None
) -> None:
    """Columns, priorities and cells are those of the real server, ages included."""
    one = f"{path}/{obj['metadata']['name']}"
    code, created = real("POST", path, obj)
    assert code == 201, created
    try:
        if status is not None:
            code, answer = real("PATCH", f"{one}/status", {"status": status}, "application/merge-patch+json")
            assert code == 200, answer
        _, theirs = real("GET", f"{one}?includeObject=Object", accept=TABLE)
        group, _, version = obj["apiVersion"].rpartition("/")
        resource_type = Registry().by_kind(group, version, obj["kind"])
        assert resource_type is not None
        stored = [row["object"] for row in theirs["rows"]]
        ours = render_table(resource_type, stored, now=datetime.now(UTC), include="None")
        columns = [
            [(one["name"], one["priority"]) for one in table["columnDefinitions"]] for table in (ours, theirs)
        ]
        assert columns[0] == columns[1]
        aged = {index for index, (name, _) in enumerate(columns[0]) if name == "Age"}
        for mine, row in zip(ours["rows"], theirs["rows"], strict=True):
            pairs = [
                pair
                for index, pair in enumerate(zip(mine["cells"], row["cells"], strict=True))
                if index not in aged
            ]
            assert [a for a, _ in pairs] == [b for _, b in pairs]
    finally:
        real("DELETE", one)
