"""Whether a data set may be fetched from an address: http or https, and a host of the public network.

In: a URL. Out: what is wrong with it, or None. Nothing is looked up: a name that resolves to a private address is
the network policy's to stop. All spellings of an address that a downloader understands are (``127.1``,
``0x7f000001``, ``[::ffff:127.0.0.1]``). Source of the semantic: upstream v0.12.
"""

from __future__ import annotations

import ipaddress
import socket
import unicodedata
from typing import Final
from urllib.parse import urlsplit

_LONGEST: Final = 8192
_METADATA: Final = (
    "metadata",
    "metadata.google.internal",
    "metadata.azure.internal",
    "instance-data",
    "instance-data.ec2.internal",
)
_WIRE_SERVER: Final = ipaddress.ip_address("168.63.129.16")  # Azure's: a public address with private answers


def problem_of_url(text: str, *, private: bool = False) -> str | None:
    """What is wrong with this URL; ``private`` lets any host pass."""
    if len(text) > _LONGEST:
        return "it is too long"
    try:
        url = urlsplit(text)
        host, _ = url.hostname or "", url.port
    except ValueError as error:
        return f"it is not a URL: {error}"
    if url.scheme not in ("http", "https"):
        return "only http and https URLs are supported"
    if not host:
        return "it names no host"
    return None if private else problem_of_host(unicodedata.normalize("NFKC", host).lower().rstrip("."))


def problem_of_host(host: str) -> str | None:
    """What is wrong with a host, a name in lower case or an address that a name resolved to."""
    if host == "localhost" or host.endswith(".localhost"):
        return f"{host} is the pod itself"
    if host in _METADATA:
        return f"{host} is the cloud's metadata service"
    address = _address(host)
    if address is None:
        return None
    if address == _WIRE_SERVER or address.is_link_local:
        return f"{host} is a link-local address, where clouds have their metadata service"
    if address.is_loopback or address.is_unspecified:
        return f"{host} is the pod itself"
    return None if address.is_global and not address.is_multicast else f"{host} is a private address"


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        try:
            return ipaddress.IPv4Address(
                socket.inet_aton(host)
            )  # 127.1, 2130706433, 0x7f.1: as downloaders read it
        except (OSError, UnicodeEncodeError, ValueError):
            return None
    if isinstance(address, ipaddress.IPv6Address):
        return address.ipv4_mapped or address.sixtofour or address
    return address
