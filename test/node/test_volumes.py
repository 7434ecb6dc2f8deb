"""Volumes as folders: rendering, atomic updates, refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kaito.local.node.env import PodFacts
from kaito.local.node.volumes import (
    File,
    MountFailed,
    TokenRequest,
    mounts,
    prepare,
    references,
    render,
    token_requests,
    write_atomically,
)

OBJECTS: dict[tuple[str, str], dict[str, Any]] = {
    ("ConfigMap", "cm"): {"data": {"a": "1", "b": "2"}, "binaryData": {"c": "Mw=="}},
    ("Secret", "s"): {"data": {"k": "c2VjcmV0"}},
}


def lookup(kind: str, name: str) -> dict[str, Any] | None:
    return OBJECTS.get((kind, name))


def pod(*volumes: dict[str, Any], **spec: Any) -> dict[str, Any]:
    meta = {"name": "p", "namespace": "ns", "uid": "u", "labels": {"x": "y"}}
    return {"metadata": meta, "spec": {"containers": [], "volumes": list(volumes), **spec}}


def facts(of: dict[str, Any]) -> PodFacts:
    return PodFacts(of, "127.97.0.1", "127.0.0.1", {})


def rendered(volume: dict[str, Any]) -> dict[str, bytes]:
    files = render(volume, facts(pod()), lookup, {TokenRequest("aud", 600): "jwt"})
    return {path: file.data for path, file in (files or {}).items()}


@pytest.mark.parametrize(
    ("volume", "files"),
    [
        ({"configMap": {"name": "cm"}}, {"a": b"1", "b": b"2", "c": b"3"}),
        ({"configMap": {"name": "cm", "items": [{"key": "a", "path": "dir/x"}]}}, {"dir/x": b"1"}),
        ({"configMap": {"name": "no", "optional": True}}, {}),
        ({"secret": {"secretName": "s"}}, {"k": b"secret"}),
        (
            {"downwardAPI": {"items": [{"path": "l", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
            {"l": b'x="y"'},
        ),
        (
            {
                "projected": {
                    "sources": [
                        {"configMap": {"name": "cm", "items": [{"key": "b", "path": "b"}]}},
                        {"secret": {"name": "s"}},
                        {"serviceAccountToken": {"path": "t", "audience": "aud", "expirationSeconds": 600}},
                    ]
                }
            },
            {"b": b"2", "k": b"secret", "t": b"jwt"},
        ),
        ({"emptyDir": {}}, {}),
    ],
)
def test_volumes_hold_what_their_sources_say(volume: dict[str, Any], files: dict[str, bytes]) -> None:
    """Keys become files, items choose and rename, projected volumes combine."""
    assert rendered(volume) == files


@pytest.mark.parametrize(
    ("volume", "message"),
    [
        ({"configMap": {"name": "no"}}, 'configmap "no" not found'),
        ({"secret": {"secretName": "no"}}, 'secret "no" not found'),
        ({"configMap": {"name": "cm", "items": [{"key": "z", "path": "z"}]}}, "non-existent config key: z"),
        ({"configMap": {"name": "cm", "items": [{"key": "a", "path": "../z"}]}}, "invalid path"),
    ],
)
def test_what_cannot_be_mounted_is_said(volume: dict[str, Any], message: str) -> None:
    """A missing object or key, or a path that leaves the volume, is a mount failure."""
    with pytest.raises(MountFailed, match=message):
        rendered(volume)


def test_an_update_replaces_all_files_in_one_step(tmp_path: Path) -> None:
    """The new set appears by moving one link; removed files vanish, unchanged sets touch nothing."""
    first = {"a": File(b"1"), "d/x": File(b"2", 0o600)}
    write_atomically(tmp_path, first)
    opened = (tmp_path / "..data").resolve()

    changed = write_atomically(tmp_path, {"a": File(b"new"), "b": File(b"3")})
    again = write_atomically(tmp_path, {"a": File(b"new"), "b": File(b"3")})

    assert (changed, again) == (True, False)
    assert sorted(p.name for p in tmp_path.iterdir() if not p.name.startswith("..")) == ["a", "b"]
    assert (tmp_path / "a").read_text() == "new"
    assert (tmp_path / "a").readlink() == Path("..data/a")
    assert not opened.exists()


def test_kinds_of_folders(tmp_path: Path) -> None:
    """Scratch volumes lie with the pod, claims outlive it, host paths are used where they are."""
    (tmp_path / "host").mkdir()
    volumes = [
        {"name": "scratch", "emptyDir": {}},
        {"name": "claim", "persistentVolumeClaim": {"claimName": "data"}},
        {"name": "host", "hostPath": {"path": str(tmp_path / "host"), "type": "Directory"}},
    ]

    places = prepare(pod(*volumes), tmp_path / "pod", tmp_path / "claims", {})

    assert places == {
        "scratch": tmp_path / "pod" / "scratch",
        "claim": tmp_path / "claims" / "ns_data",
        "host": tmp_path / "host",
    }
    with pytest.raises(MountFailed, match="not a directory"):
        prepare(
            pod({"name": "h", "hostPath": {"path": str(tmp_path / "no"), "type": "Directory"}}),
            *[tmp_path] * 2,
            {},
        )
    with pytest.raises(MountFailed, match="cannot supply"):
        prepare(pod({"name": "n", "nfs": {}}), tmp_path, tmp_path, {})


def test_mounts_lead_to_folders(tmp_path: Path) -> None:
    """A subPath, plain or with variables, names a folder in the volume and may not leave it."""
    container = {
        "volumeMounts": [
            {"name": "v", "mountPath": "/all"},
            {"name": "v", "mountPath": "/sub", "subPath": "s"},
            {"name": "v", "mountPath": "/expr", "subPathExpr": "$(POD)/x"},
        ]
    }

    found = mounts(container, {"v": tmp_path}, {"POD": "p"})

    assert found == {"/all": str(tmp_path), "/sub": str(tmp_path / "s"), "/expr": str(tmp_path / "p" / "x")}
    with pytest.raises(MountFailed, match=r"\.\."):
        mounts({"volumeMounts": [{"name": "v", "mountPath": "/x", "subPath": "../y"}]}, {"v": tmp_path}, {})


def test_references_name_what_a_pod_reads() -> None:
    """Every ConfigMap, Secret and token of volumes and environments is found, so its change reaches the pod."""
    token = {"serviceAccountToken": {"path": "t", "audience": "aud"}}
    one = pod(
        {"name": "a", "configMap": {"name": "cm"}},
        {"name": "b", "projected": {"sources": [{"secret": {"name": "s"}}, token]}},
        initContainers=[{"name": "i", "envFrom": [{"configMapRef": {"name": "env"}}]}],
        containers=[
            {"name": "c", "env": [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "t", "key": "k"}}}]}
        ],
    )

    assert references(one) == {("ConfigMap", "cm"), ("Secret", "s"), ("ConfigMap", "env"), ("Secret", "t")}
    assert token_requests(one) == {TokenRequest("aud", 3600)}
