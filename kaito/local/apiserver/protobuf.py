"""Request bodies in Kubernetes' protobuf encoding, decoded to what their JSON form would be.

In: the bytes of a body with media type ``application/vnd.kubernetes.protobuf``, which kubectl (since 1.32) and
Go clients send for built-in kinds. Out: plain objects. Responses are never protobuf: those clients also accept
JSON. The wire numbers come from ``protobuf_fields.json`` (made by ``hack/protobuf_fields.py``): per message
``[number, JSON name, code]``, where a code is an optional mark and a type.

Marks: ``*`` pointer (a zero is kept), ``[]`` list, ``{}`` map by string, ``~`` fields of the message join the
outer object; a final ``?`` drops zeros. Types: s string, y bytes, i integer, b boolean, d double, q quantity,
t time, u time with microseconds, D duration, o integer or string, r raw JSON, f field set, L list of strings
in a message, M<name> message.
"""

from __future__ import annotations

import base64
import datetime as dt
import struct
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import orjson

from manager.types import Obj

__all__ = ["MEDIA_TYPE", "ProtobufError", "decode"]

MEDIA_TYPE = "application/vnd.kubernetes.protobuf"
_MAGIC = b"k8s\x00"
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MAX_DEPTH = 100


class ProtobufError(ValueError):
    """The body is no protobuf object that is known here."""


@lru_cache(maxsize=1)
def _tables() -> tuple[dict[str, str], dict[str, dict[int, tuple[str, str]]]]:
    raw = orjson.loads(Path(__file__).with_name("protobuf_fields.json").read_bytes())
    messages = {
        name: {number: (json_name, code) for number, json_name, code in fields}
        for name, fields in raw["messages"].items()
    }
    return raw["kinds"], messages


def decode(body: bytes) -> Obj:
    """The object of a body.

    Raises:
        ProtobufError: it is malformed, or of a kind without known wire numbers.
    """
    if not body.startswith(_MAGIC):
        raise ProtobufError("does not begin with the protobuf marker of Kubernetes")
    try:
        return _decode(body)
    except (struct.error, OverflowError, OSError) as error:  # a double cut short, a time beyond all calendars
        raise ProtobufError(f"a value out of range: {error}") from error


def _decode(body: bytes) -> Obj:
    api_version = kind = ""
    raw = b""
    for number, value in _fields(memoryview(body)[len(_MAGIC) :]):
        if number == 1:
            for inner, text in _fields(_bytes(value)):
                if inner == 1:
                    api_version = _text(text)
                elif inner == 2:
                    kind = _text(text)
        elif number == 2:
            raw = bytes(_bytes(value))
    kinds, _ = _tables()
    message = kinds.get(f"{api_version}/{kind}") or kinds.get(f"*/{kind}")
    if message is None:
        raise ProtobufError(f"{api_version} {kind} is not known in protobuf; send JSON")
    return {"apiVersion": api_version, "kind": kind, **_message(memoryview(raw), message, 0)}


def _fields(data: memoryview) -> Iterator[tuple[int, Any]]:
    """Field numbers and raw values: integers, or the bytes of a length-delimited field."""
    at, end = 0, len(data)
    while at < end:
        tag, at = _varint(data, at)
        number, wire = tag >> 3, tag & 7
        if wire == _VARINT:
            value: Any
            value, at = _varint(data, at)
        elif wire == _BYTES:
            size, at = _varint(data, at)
            if at + size > end:
                raise ProtobufError("a field is longer than its message")
            value, at = data[at : at + size], at + size
        elif wire in (_FIXED64, _FIXED32):
            size = 8 if wire == _FIXED64 else 4
            if at + size > end:
                raise ProtobufError("a field is longer than its message")
            value, at = data[at : at + size], at + size
        else:
            raise ProtobufError(f"wire type {wire} is not used by Kubernetes")
        yield number, value


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise ProtobufError("an integer does not end")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, at
        shift += 7


def _message(data: memoryview, name: str, depth: int) -> Obj:
    if depth > _MAX_DEPTH:
        raise ProtobufError("messages are nested too deeply")
    fields = _tables()[1][name]
    found: Obj = {}
    for number, raw in _fields(data):
        if number not in fields:
            continue  # newer than the table, as an unknown field would be in JSON
        json_name, code = fields[number]
        if code.startswith("~"):
            found.update(_value(raw, code[1:], depth))
        elif code.startswith("[]"):
            found.setdefault(json_name, []).append(_value(raw, code[2:], depth))
        elif code.startswith("{}"):
            key, value = _entry(raw, code[2:], depth)
            found.setdefault(json_name, {})[key] = value
        else:
            value = _value(raw, code.lstrip("*").rstrip("?"), depth)
            if value is None or (code.endswith("?") and not value):
                continue
            found[json_name] = value
    return found


def _entry(data: Any, code: str, depth: int) -> tuple[str, Any]:
    key, raw = "", None
    for number, value in _fields(_bytes(data)):
        if number == 1:
            key = _text(value)
        elif number == 2:
            raw = value
    if raw is None:
        raw = 0 if code in ("i", "b") else memoryview(b"")
    return key, _value(raw, code, depth)


def _bytes(raw: Any) -> memoryview:
    if not isinstance(raw, memoryview):
        raise ProtobufError("a number where a message or text belongs")
    return raw


def _text(raw: Any) -> str:
    try:
        return str(_bytes(raw), "utf-8")
    except UnicodeDecodeError as error:
        raise ProtobufError("text that is not UTF-8") from error


def _signed(raw: Any) -> int:
    if not isinstance(raw, int):
        raise ProtobufError("bytes where a number belongs")
    return raw - (1 << 64) if raw >> 63 else raw


def _value(raw: Any, code: str, depth: int) -> Any:
    match code[0]:
        case "s":
            return _text(raw)
        case "i":
            return _signed(raw)
        case "b":
            return bool(_signed(raw))
        case "M":
            return _message(_bytes(raw), code[1:], depth + 1)
        case "y":
            return base64.b64encode(_bytes(raw)).decode()
        case "d":
            return struct.unpack("<d", _bytes(raw))[0]
        case "L":
            return [_text(value) for number, value in _fields(_bytes(raw)) if number == 1]
        case "{":
            return dict(_entry(value, code[2:], depth) for _, value in _fields(_bytes(raw)))
    return _well_known(dict(_fields(_bytes(raw))), code)


def _well_known(parts: dict[int, Any], code: str) -> Any:
    """Messages whose JSON form is not an object."""
    match code[0]:
        case "q":
            return _text(parts[1]) if 1 in parts else "0"
        case "t" | "u":
            if not parts:
                return None  # the zero time
            moment = dt.datetime.fromtimestamp(_signed(parts.get(1, 0)), dt.UTC)
            if code[0] == "t":
                return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
            micros = _signed(parts.get(2, 0)) // 1000
            return f"{moment:%Y-%m-%dT%H:%M:%S}.{micros:06d}Z"
        case "o":
            return _text(parts.get(3, memoryview(b""))) if parts.get(1) else _signed32(parts.get(2, 0))
        case "D":
            return f"{_signed(parts.get(1, 0)) / 1e9:g}s"
        case "r" | "f":
            try:
                return orjson.loads(_bytes(parts.get(1, memoryview(b"null"))) or b"null")
            except orjson.JSONDecodeError as error:
                raise ProtobufError("embedded JSON is malformed") from error
    raise ProtobufError(f"no such code: {code}")


def _signed32(raw: Any) -> int:
    value = _signed(raw)
    return value - (1 << 32) if 0 <= value < (1 << 32) and value >> 31 else value
