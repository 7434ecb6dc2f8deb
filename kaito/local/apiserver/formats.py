"""The string formats that schemas name: ``date-time``, ``ipv4``, ``uuid`` and the rest.

In: a text. Out: whether it is of the format. Unknown formats are not checked, as on the real server.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
import uuid
from collections.abc import Callable
from datetime import date, datetime
from urllib.parse import urlsplit


def _try(parse: Callable[[str], object]) -> Callable[[str], bool]:
    def check(value: str) -> bool:
        try:
            parse(value)
        except (ValueError, binascii.Error):
            return False
        return True

    return check


_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)")
_DURATION = re.compile(r"[+-]?((\d+(\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h))+|0")
_HOST = re.compile(
    r"(?=.{1,253}$)[a-zA-Z0-9]([-a-zA-Z0-9]{0,61}[a-zA-Z0-9])?(\.[a-zA-Z0-9]([-a-zA-Z0-9]{0,61}[a-zA-Z0-9])?)*"
)
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+")


def is_date_time(value: str) -> bool:
    if not _RFC3339.fullmatch(value):
        return False
    try:
        datetime.fromisoformat(re.sub(r"\.\d+", "", value).upper().replace("Z", "+00:00"))
    except ValueError:
        return False
    return True


def is_base64(value: str) -> bool:
    try:
        base64.b64decode(value.replace("\n", "").replace("\r", ""), validate=True)
    except (ValueError, binascii.Error):
        return False
    return True


FORMATS: dict[str, Callable[[str], bool]] = {
    "date-time": is_date_time,
    "date": _try(date.fromisoformat),
    "duration": lambda value: bool(_DURATION.fullmatch(value)),
    "byte": is_base64,
    "ipv4": _try(ipaddress.IPv4Address),
    "ipv6": _try(ipaddress.IPv6Address),
    "cidr": _try(lambda value: ipaddress.ip_network(value, strict=False)),
    "uuid": _try(uuid.UUID),
    "hostname": lambda value: bool(_HOST.fullmatch(value)),
    "email": lambda value: bool(_EMAIL.fullmatch(value)),
    "uri": lambda value: bool(urlsplit(value).scheme),
}
