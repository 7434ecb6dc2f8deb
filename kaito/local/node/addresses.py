"""Pod addresses: one loopback address of 127.97.0.0/16 per pod, kept in a file.

Linux accepts every address of 127.0.0.0/8 without any set-up, so a pod that binds `$(POD_IP)` has all ports
for itself. The file makes an address survive an agent restart; it is written before an address is handed
out, so that no two pods ever have the same one.
"""

from __future__ import annotations

import json
import logging
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

log = logging.getLogger("kaito.local.node.addresses")

POD_NETWORK = IPv4Network("127.97.0.0/16")


class Addresses:
    """Owner of the address file."""

    def __init__(self, file: Path, network: IPv4Network = POD_NETWORK) -> None:
        self._file = file
        self._network = network
        self._by_pod: dict[str, str] = {}
        try:
            self._by_pod = {str(k): str(IPv4Address(v)) for k, v in json.loads(file.read_bytes()).items()}
        except FileNotFoundError:
            pass
        except (ValueError, AttributeError) as err:
            log.warning("address file is broken and starts anew file=%s error=%s", file, err)
        self._last = int(network.network_address)

    def assign(self, uid: str) -> str:
        """The pod's address; the same one every time.

        Raises:
            RuntimeError: all addresses are in use.
        """
        if uid in self._by_pod:
            return self._by_pod[uid]
        used = {int(IPv4Address(address)) for address in self._by_pod.values()}
        first, size = int(self._network.network_address), self._network.num_addresses
        for step in range(1, size):
            # Onward from the last one: an address that was just given back rests as long as possible.
            candidate = first + (self._last - first + step) % size
            if candidate not in used and candidate & 0xFF not in (0, 255):
                self._last = candidate
                self._by_pod[uid] = str(IPv4Address(candidate))
                self._save()
                return self._by_pod[uid]
        raise RuntimeError(f"no free pod address in {self._network}")

    def keep_only(self, uids: set[str]) -> None:
        """Forget the addresses of pods that are not in `uids`."""
        stale = set(self._by_pod) - uids
        for uid in stale:
            del self._by_pod[uid]
        if stale:
            self._save()

    def release(self, uid: str) -> None:
        """The pod is gone."""
        if self._by_pod.pop(uid, None) is not None:
            self._save()

    def _save(self) -> None:
        fresh = self._file.with_suffix(".tmp")
        fresh.write_text(json.dumps(self._by_pod))
        fresh.replace(self._file)
