"""Protobuf bodies: what kubectl sends, what broken ones lead to."""

from __future__ import annotations

import contextlib

import aiohttp
from hypothesis import given, settings
from hypothesis import strategies as st

from kaito.local.apiserver.protobuf import MEDIA_TYPE, ProtobufError, decode
from kaito.local.apiserver.server import ApiServer


def varint(value: int) -> bytes:
    out = bytearray()
    value &= (1 << 64) - 1
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def field(number: int, value: bytes | str | int) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    raw = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(raw)) + raw


def envelope(api_version: str, kind: str, raw: bytes) -> bytes:
    return b"k8s\x00" + field(1, field(1, api_version) + field(2, kind)) + field(2, raw)


def test_values_have_their_json_form() -> None:
    """Texts, numbers, lists, maps, quantities, times, ports and embedded messages become what JSON would hold;
    zeros of optional values vanish, those behind pointers stay."""
    meta = (
        field(1, "p") + field(3, "") + field(8, field(1, 1_700_000_000)) + field(11, field(1, "a") + field(2, "b"))
    )
    resources = field(1, field(1, "cpu") + field(2, field(1, "500m")))
    http = field(1, "/") + field(2, field(1, 1) + field(2, 0) + field(3, "web")) + field(3, "") + field(4, "")
    probe = field(1, field(2, http)) + field(2, 0) + field(3, 7)
    port = field(1, "") + field(2, 0) + field(3, 80)
    container = (
        field(1, "c") + field(2, "x") + field(3, "run") + field(3, "it") + field(6, port) + field(8, resources)
        + field(11, probe) + field(14, "") + field(16, 0)
    )  # fmt: skip
    volume = field(1, "v") + field(2, field(2, b""))
    spec = field(1, volume) + field(2, container) + field(4, 0) + field(11, 0) + field(21, 0)
    pod = decode(envelope("v1", "Pod", field(1, meta) + field(2, spec) + field(3, b"")))

    assert pod["metadata"] == {"name": "p", "creationTimestamp": "2023-11-14T22:13:20Z", "labels": {"a": "b"}}
    assert pod["spec"]["terminationGracePeriodSeconds"] == 0
    assert "hostNetwork" not in pod["spec"]
    assert pod["spec"]["volumes"] == [{"name": "v", "emptyDir": {}}]
    assert pod["spec"]["containers"] == [
        {
            "name": "c",
            "image": "x",
            "command": ["run", "it"],
            "ports": [{"containerPort": 80}],
            "resources": {"limits": {"cpu": "500m"}},
            "readinessProbe": {"httpGet": {"path": "/", "port": "web"}, "timeoutSeconds": 7},
        }
    ]


def test_negative_numbers_and_bytes() -> None:
    """Integers are signed, and bytes are base64 as in JSON."""
    secret = decode(envelope("v1", "Secret", field(2, field(1, "k") + field(2, b"\x00\xff"))))
    options = decode(envelope("v1", "DeleteOptions", field(1, -1)))

    assert secret["data"] == {"k": "AP8="}
    assert options["gracePeriodSeconds"] == -1


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(["Pod", "Service", "Node", "Event"]), st.binary(max_size=200))
def test_no_bytes_lead_to_anything_but_an_object_or_an_error(kind: str, raw: bytes) -> None:
    """Whatever the bytes, the answer is an object or ProtobufError."""
    for body in (raw, b"k8s\x00" + raw, envelope("v1", kind, raw)):
        with contextlib.suppress(ProtobufError):
            assert isinstance(decode(body), dict)


async def test_a_body_is_stored_and_a_broken_one_is_a_bad_request(server: ApiServer) -> None:
    """The server takes protobuf where it takes JSON, and answers 400 to nonsense, 415 to CBOR."""
    url = f"{server.url}/api/v1/namespaces/default/configmaps"
    headers = {"Authorization": f"Bearer {server.token}", "Content-Type": MEDIA_TYPE}
    good = envelope("v1", "ConfigMap", field(1, field(1, "a")) + field(2, field(1, "k") + field(2, "v")))
    async with aiohttp.ClientSession(headers=headers) as session:
        async with session.post(url, data=good, ssl=False) as response:
            stored = await response.json()
        async with session.post(url, data=b"nonsense", ssl=False) as response:
            broken = response.status
        async with session.post(
            url, data=b"x", ssl=False, headers={"Content-Type": "application/cbor"}
        ) as response:
            foreign = response.status

    assert stored["data"] == {"k": "v"}
    assert (broken, foreign) == (400, 415)
