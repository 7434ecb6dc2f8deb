"""The agent's pure parts: back-off, quantities, environments, paths, images, proxy ports, addresses."""

from __future__ import annotations

import resource
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest

from kaito.local.node.addresses import Addresses
from kaito.local.node.backoff import BackOff, describe
from kaito.local.node.command import take_descriptors
from kaito.local.node.env import ConfigMissing, PodFacts, container_env, expand, words
from kaito.local.node.images import ImageTable, ImageTableError, ImageUnknown, parse_weights
from kaito.local.node.names import with_addresses
from kaito.local.node.paths import PathMap
from kaito.local.node.ports import Frontend, frontends
from kaito.local.quantities import divide_up, parse_quantity

POD: dict[str, Any] = {
    "metadata": {"name": "p", "namespace": "ns", "uid": "u-1", "labels": {"a": "b"}, "annotations": {"x": 'q"'}},
    "spec": {"nodeName": "n1", "containers": []},
}
FACTS = PodFacts(pod=POD, pod_ip="127.97.0.1", host_ip="127.0.0.1", allocatable={"cpu": "2", "memory": "4Gi"})
OBJECTS: dict[tuple[str, str], dict[str, Any]] = {
    ("ConfigMap", "cm"): {"data": {"KEY": "value", "not/a/name": "x"}},
    ("Secret", "s"): {"data": {"TOKEN": "c2VjcmV0"}},
}


def lookup(kind: str, name: str) -> dict[str, Any] | None:
    return OBJECTS.get((kind, name))


def test_backoff_is_the_kubelets() -> None:
    """A crash loop restarts at once, then after 10 s doubled up to 5 min."""
    state, now, delays = BackOff(), 1000.0, []
    for _ in range(9):
        ended = now
        now = state.until(ended)
        delays.append(now - ended)
        state = state.raise_(ended, now)

    assert delays == [0, 10, 20, 40, 80, 160, 300, 300, 300]


def test_backoff_is_forgotten_after_a_long_run() -> None:
    """A run of more than ten minutes makes the next restart immediate again."""
    state = BackOff(delay=80, raised=0)

    assert state.until(600) == 680
    assert state.until(601) == 601
    assert state.raise_(601, 601) == BackOff(10, 601)


@pytest.mark.parametrize(("seconds", "text"), [(10, "10s"), (80, "1m20s"), (300, "5m0s")])
def test_backoff_is_described_as_go_does(seconds: float, text: str) -> None:
    """Delays read like Go durations, which is what people grep for."""
    assert describe(seconds) == text


@pytest.mark.parametrize(
    ("quantity", "divisor", "value"),
    [("1", "1", 1), ("250m", "1", 1), ("250m", "1m", 250), ("1Gi", "1Mi", 1024), ("1.5Gi", "1", 1610612736)],
)
def test_resource_quantities_are_divided_and_rounded_up(quantity: str, divisor: str, value: int) -> None:
    """resourceFieldRef gives whole units of the divisor, rounded up."""
    assert divide_up(quantity, divisor) == value


@pytest.mark.parametrize("text", ["", "x", "1 Gi", "1KiB", "--1"])
def test_what_is_no_quantity_is_refused(text: str) -> None:
    """A malformed quantity is an error, not zero."""
    with pytest.raises(ValueError, match="not a quantity"):
        parse_quantity(text)


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("$(A)", "1"),
        ("x$(A)y$(B)", "x1y2"),
        ("$$(A)", "$(A)"),
        ("$(NO)", "$(NO)"),
        ("$A ${A}", "$A ${A}"),
        ("$$$$(A)", "$$(A)"),
    ],
)
def test_references_expand_as_kubernetes_says(text: str, result: str) -> None:
    """`$(VAR)` is replaced, `$$` escapes, what is unknown stays."""
    assert expand(text, {"A": "1", "B": "2"}) == result


def test_environment_is_built_in_the_order_of_the_spec() -> None:
    """envFrom comes first, env overrides it, and a value sees the variables before it only."""
    container = {
        "name": "c",
        "envFrom": [{"configMapRef": {"name": "cm"}, "prefix": "P_"}, {"secretRef": {"name": "s"}}],
        "env": [
            {"name": "LATER", "value": "$(IP)"},
            {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "URL", "value": "http://$(IP):80"},
            {"name": "LABEL", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['a']"}}},
            {"name": "HOST", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}},
            {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "s", "key": "TOKEN"}}},
            {"name": "NONE", "valueFrom": {"secretKeyRef": {"name": "no", "key": "k", "optional": True}}},
            {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1m"}}},
        ],
    }

    env = container_env(container, FACTS, lookup)

    assert env == {
        "P_KEY": "value",
        "TOKEN": "secret",
        "LATER": "$(IP)",
        "IP": "127.97.0.1",
        "URL": "http://127.97.0.1:80",
        "LABEL": "b",
        "HOST": "127.0.0.1",
        "KEY": "secret",
        "CPU": "2000",
    }
    assert words(["--host=$(IP)"], env) == ["--host=127.97.0.1"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"secretKeyRef": {"name": "no", "key": "k"}}, 'secret "no" not found'),
        ({"configMapKeyRef": {"name": "cm", "key": "k"}}, "couldn't find key k in ConfigMap ns/cm"),
        ({"fieldRef": {"fieldPath": "spec.nope"}}, "unsupported fieldRef 'spec.nope'"),
    ],
)
def test_missing_configuration_is_named(source: dict[str, Any], message: str) -> None:
    """What a container lacks is said in the kubelet's words."""
    with pytest.raises(ConfigMissing) as raised:
        container_env({"env": [{"name": "A", "valueFrom": source}]}, FACTS, lookup)

    assert str(raised.value) == message


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("--leader=w-0.w-headless.ns.svc:29500", "--leader=127.97.0.9:29500"),
        ("tcp://w-0.w-headless.ns.svc.cluster.local./x", "tcp://127.97.0.9/x"),
        ("a service: kubernetes.default.svc:443", "a service: kubernetes.default.svc:443"),
        ("https://w-0.w-headless.ns.svc.example.com", "https://w-0.w-headless.ns.svc.example.com"),
        ("x.w-0.w-headless.ns.svc", "x.w-0.w-headless.ns.svc"),
        ("archive.tar.gz.svcs", "archive.tar.gz.svcs"),
        ("", ""),
    ],
)
def test_names_of_pods_become_addresses(text: str, result: str) -> None:
    """There is no DNS on this machine that knows them; all other names stay as they are."""
    pods = {("ns", "w-headless", "w-0"): "127.97.0.9"}
    assert with_addresses(text, lambda *name: pods.get(name)) == result


def test_a_name_that_no_pod_has_yet_is_said() -> None:
    """The container waits for it, and its status says for which name."""
    with pytest.raises(ConfigMissing, match=r"no pod answers to the name w-1\.w-headless\.ns\.svc yet"):
        with_addresses("--leader=w-1.w-headless.ns.svc:29500", lambda *_: None)


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("/data", "/host/d"),
        ("/data/x", "/host/d/x"),
        ("--flag=/data/x", "--flag=/host/d/x"),
        ("/database", "/database"),
        ("http://h/data", "http://h/data"),
        ("cat /data/a > '/data/b'", "cat /host/d/a > '/host/d/b'"),
        ("/a:/data:/b", "/a:/host/d:/b"),
        ("/data/sub/y", "/host/s/y"),
        ("relative/data", "relative/data"),
    ],
)
def test_container_paths_become_host_paths(text: str, result: str) -> None:
    """A mount path is replaced where it stands for a path, and nowhere else; the longest one wins."""
    assert PathMap({"/data/": "/host/d", "/data/sub": "/host/s", "/": "/never"}).rewrite(text) == result


def test_the_seeds_curl_command_runs_as_written() -> None:
    """`-- curl -X POST ...` is not prefixed with curl again, other arguments are."""
    image = ImageTable.load().lookup("curlimages/curl")

    assert image.argv([], ["curl", "-X", "POST"]) == ["curl", "-X", "POST"]
    assert image.argv([], ["-s", "http://x"]) == ["curl", "-s", "http://x"]
    assert image.argv(["sh", "-c"], ["true"]) == ["sh", "-c", "true"]


def test_a_preset_image_brings_weights_and_the_kaito_command() -> None:
    """The phi-3 images map the weights path to the packaged stand-in and `kaito` to this installation."""
    image = ImageTable.load().lookup("mcr.microsoft.com/aks/kaito/kaito-phi-3-mini-4k-instruct:0.0.1")

    argv = image.resolve(["kaito", "serve"], "/usr/bin")

    assert Path(image.paths["/workspace/weights"]).name == "tiny-phi3"
    assert argv[1:] == ["-P", "-m", "kaito", "serve"]


def test_weights_of_a_preset_can_be_given(tmp_path: Path) -> None:
    """`--weights` serves a preset that has no stand-in; without it the message says so."""
    with pytest.raises(ImageUnknown, match="--weights falcon-7b=FOLDER"):
        ImageTable.load().lookup("reg/kaito-falcon-7b:1")

    table = ImageTable.load(weights=parse_weights([f"falcon-7b={tmp_path}"]))
    assert table.lookup("reg/kaito-falcon-7b:1").paths == {"/workspace/weights": str(tmp_path)}


def test_an_unknown_image_says_how_to_map_it() -> None:
    """The pull error names the option and images that work."""
    with pytest.raises(ImageUnknown, match=r"(?s)nginx.*--images FILE.*busybox"):
        ImageTable.load().lookup("nginx:1.27")


def test_a_users_table_comes_first(tmp_path: Path) -> None:
    """An entry of --images shadows the packaged one; a broken file is refused by name."""
    file = tmp_path / "mine.yaml"
    file.write_text("images: [{match: [busybox], entrypoint: [echo], needs: {no-such-program: pkg}}]")

    with pytest.raises(ImageUnknown, match='install the package "pkg"'):
        ImageTable.load(file).lookup("docker.io/library/busybox")
    file.write_text("images: [{match: busybox}]")
    with pytest.raises(ImageTableError, match=r"mine.yaml: entry 1"):
        ImageTable.load(file)


@pytest.mark.parametrize("entry", ["phi", "=x", "phi="])
def test_weights_options_are_checked(entry: str) -> None:
    """A --weights option without preset or folder is refused."""
    with pytest.raises(ImageTableError, match="PRESET=FOLDER"):
        parse_weights([entry])


def slice_of(*endpoints: dict[str, Any], port: int = 8080, name: str | None = "http") -> dict[str, Any]:
    return {
        "metadata": {"namespace": "ns", "labels": {"kubernetes.io/service-name": "svc"}},
        "addressType": "IPv4",
        "ports": [{"name": name, "port": port}],
        "endpoints": list(endpoints),
    }


def test_services_are_reached_at_their_ready_endpoints() -> None:
    """Ports are matched by name, endpoints that are not ready are left out, unknown readiness counts as ready."""
    service = {
        "metadata": {"namespace": "ns", "name": "svc"},
        "spec": {
            "clusterIP": "127.96.0.9",
            "ports": [{"name": "http", "port": 80}, {"name": "dns", "port": 53, "protocol": "UDP"}],
        },
    }
    slices = [
        slice_of({"addresses": ["127.97.0.2"], "conditions": {"ready": True}}, {"addresses": ["127.97.0.1"]}),
        slice_of({"addresses": ["127.97.0.3"], "conditions": {"ready": False}}),
        slice_of({"addresses": ["127.97.0.4"]}, name="other"),
    ]

    found = frontends(service, slices)

    backends = [("127.97.0.1", 8080), ("127.97.0.2", 8080)]
    assert found == {Frontend("ns/svc", "127.96.0.9", 80): backends}


@pytest.mark.parametrize("spec", [{"clusterIP": "None"}, {"type": "ExternalName"}, {"clusterIP": ""}])
def test_services_without_address_need_no_socket(spec: dict[str, Any]) -> None:
    """Headless and external services are not proxied."""
    service = {"metadata": {"namespace": "ns", "name": "svc"}, "spec": {**spec, "ports": [{"port": 80}]}}

    assert frontends(service, []) == {}


def test_addresses_survive_and_are_unique(tmp_path: Path) -> None:
    """A pod keeps its address over a restart, and no two pods share one."""
    file = tmp_path / "addresses.json"
    first = Addresses(file, IPv4Network("127.97.0.0/29"))
    given = {uid: first.assign(uid) for uid in ("a", "b", "c")}
    first.close()

    again = Addresses(file, IPv4Network("127.97.0.0/29"))

    assert len(set(given.values())) == 3
    assert {uid: again.assign(uid) for uid in given} == given
    again.release("a")
    assert again.assign("d") != given["b"]
    with pytest.raises(RuntimeError, match="no free pod address"):
        for number in range(10):
            again.assign(f"more-{number}")
    again.close()


def test_two_clusters_on_one_machine_never_share_a_pod_address(tmp_path: Path) -> None:
    """What one agent has in use another does not hand out, until it is given back."""
    network = IPv4Network("127.97.255.0/30")  # three addresses that may be used
    ours, theirs = (Addresses(tmp_path / name, network) for name in ("ours", "theirs"))
    first = {ours.assign("a"), theirs.assign("b"), ours.assign("c")}
    with pytest.raises(RuntimeError, match="no free pod address"):
        theirs.assign("d")
    ours.release("a")

    assert len(first) == 3
    assert theirs.assign("d") in first
    ours.close()
    theirs.close()


def test_the_agent_takes_all_the_descriptors_that_its_user_may_have() -> None:
    """A shell's soft limit of a few hundred open files does not bound the number of pods."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 512), hard))
    try:
        take_descriptors()
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == hard
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
