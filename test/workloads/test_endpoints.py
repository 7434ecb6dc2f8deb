from __future__ import annotations

from typing import Any

import pytest

from kaito.local.workloads.endpoints.backends import backends
from kaito.local.workloads.endpoints.legacy import endpoints
from kaito.local.workloads.endpoints.slices import slices
from kaito.local.workloads.pods import labels_of

Obj = dict[str, Any]


def service(*ports: Obj, **spec: Any) -> Obj:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web", "namespace": "d", "uid": "svc", "labels": {"team": "x"}},
        "spec": {"ports": list(ports) or [{"port": 80, "targetPort": 5000}], **spec},
    }


def pod(name: str, ip: str = "127.97.0.1", *, ready: bool = True, phase: str = "Running", **meta: Any) -> Obj:
    return {
        "metadata": {"name": name, "namespace": "d", "uid": name, **meta},
        "spec": {
            "nodeName": "n1",
            "containers": [{"name": "c", "ports": [{"name": "http", "containerPort": 5000}]}],
        },
        "status": {"phase": phase, "podIP": ip, "conditions": [{"type": "Ready", "status": str(ready)}]},
    }


def addresses(svc: Obj, *pods: Obj) -> tuple[list[str], list[str]]:
    subsets = endpoints(svc, backends(svc, pods))["subsets"]
    return (
        [a["ip"] for s in subsets for a in s.get("addresses", ())],
        [a["ip"] for s in subsets for a in s.get("notReadyAddresses", ())],
    )


@pytest.mark.parametrize(
    ("svc", "state", "expected"),
    [
        (service(), {}, (["127.97.0.1"], [])),
        (service(), {"ready": False}, ([], ["127.97.0.1"])),
        (service(publishNotReadyAddresses=True), {"ready": False}, (["127.97.0.1"], [])),
        (service(), {"phase": "Succeeded"}, ([], [])),
        (service(), {"ip": ""}, ([], [])),
        (service(), {"deletionTimestamp": "x"}, ([], [])),
        (service(publishNotReadyAddresses=True), {"deletionTimestamp": "x"}, (["127.97.0.1"], [])),
    ],
)
def test_readiness_decides_where_an_address_stands(svc: Obj, state: Obj, expected: object) -> None:
    """Ready, not ready or absent, as the pod's state and the Service's wish have it."""
    assert addresses(svc, pod("a", **state)) == expected


@pytest.mark.parametrize(("target", "resolved"), [(5000, 5000), ("http", 5000), ("8080", 8080), ("other", None)])
def test_target_ports_resolve_by_number_and_by_name(target: object, resolved: int | None) -> None:
    """A name is looked up in the pod's containers; a pod without it is not behind the Service."""
    found = backends(service({"name": "p", "port": 80, "targetPort": target}), [pod("a")])

    assert [b.ports[0].port for b in found] == ([resolved] if resolved else [])


def test_pods_with_different_ports_form_different_groups() -> None:
    """A named port may have another number on each pod; each number is a subset and a slice of its own."""
    other = pod("b", "127.97.0.2")
    other["spec"]["containers"][0]["ports"][0]["containerPort"] = 6000
    svc = service({"port": 80, "targetPort": "http"})
    behind = backends(svc, [pod("a"), other])

    assert [s["ports"][0]["port"] for s in endpoints(svc, behind)["subsets"]] == [5000, 6000]
    assert sorted(s["ports"][0]["port"] for s in slices(svc, behind, {}, "v1").values()) == [5000, 6000]


def test_slices_say_more_about_terminating_pods() -> None:
    """A pod on its way out still serves, which only slices can tell."""
    svc = service()
    (made,) = slices(svc, backends(svc, [pod("a", deletionTimestamp="x")]), {"n1": "west"}, "v1").values()

    (endpoint,) = made["endpoints"]
    assert endpoint["conditions"] == {"ready": False, "serving": True, "terminating": True}
    assert (endpoint["nodeName"], endpoint["zone"]) == ("n1", "west")
    assert labels_of(made)["kubernetes.io/service-name"] == "web"
    assert labels_of(made)["endpointslice.kubernetes.io/managed-by"] == "endpointslice-controller.k8s.io"


def test_slices_of_the_older_version_name_the_node_in_the_topology() -> None:
    """discovery.k8s.io/v1beta1 knows neither nodeName nor serving."""
    svc = service()
    (made,) = slices(svc, backends(svc, [pod("a")]), {}, "v1beta1").values()

    assert made["apiVersion"] == "discovery.k8s.io/v1beta1"
    assert made["endpoints"][0]["topology"] == {"kubernetes.io/hostname": "n1"}
    assert made["endpoints"][0]["conditions"] == {"ready": True}


def test_a_slice_holds_a_hundred_and_names_are_stable() -> None:
    """Many pods are cut into slices whose names depend on Service, ports and number only."""
    svc = service()
    pods = [pod(f"p{i}", f"127.97.1.{i}") for i in range(150)]
    made = slices(svc, backends(svc, pods), {}, "v1")

    assert sorted(len(s["endpoints"]) for s in made.values()) == [50, 100]
    assert set(made) == set(slices(svc, backends(svc, pods[:140]), {}, "v1"))


def test_a_service_without_pods_has_one_empty_slice() -> None:
    """Watchers can tell nobody from not looked at yet."""
    (made,) = slices(service(), [], {}, "v1").values()

    assert (made["endpoints"], made["ports"]) == ([], [])


def test_headless_pods_keep_their_host_names() -> None:
    """A pod whose subdomain is the Service is listed with its host name, for DNS."""
    svc = service(clusterIP="None")
    named = pod("db-0")
    named["spec"] |= {"hostname": "db-0", "subdomain": "web"}
    made = endpoints(svc, backends(svc, [named]))

    assert made["subsets"][0]["addresses"][0]["hostname"] == "db-0"
    assert labels_of(made)["service.kubernetes.io/headless"] == ""
