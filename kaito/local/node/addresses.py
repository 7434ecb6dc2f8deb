"""Pod addresses: one loopback address of 127.97.0.0/16 per pod, kept in a file.

Linux accepts every address of 127.0.0.0/8 without any set-up, so a pod that binds `$(POD_IP)` has all ports
for itself. The file makes an address survive an agent restart; it is written before an address is handed
out, so that no two pods of one agent ever have the same one.

Loopback addresses belong to the machine, and another cluster may run on it: a probe would then be answered by
a stranger's server. So an address is claimed while it is in use, by a name in the kernel's abstract socket
namespace, which has the same scope as the loopback interface, and which the kernel frees with the process.
The search begins at a random place, so that agents meet rarely even in the moments when a claim has lapsed.
"""

from __future__ import annotations

import errno
import logging
import random
import socket
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from kaito.local.node.journal import Journal

log = logging.getLogger("kaito.local.node.addresses")

POD_NETWORK = IPv4Network("127.97.0.0/16")


class Addresses:
    """Owner of the address file."""

    def __init__(self, file: Path, network: IPv4Network = POD_NETWORK, rng: random.Random | None = None) -> None:
        self._network = network
        self._claims: dict[str, socket.socket] = {}
        try:
            self._journal = Journal(file)
            self._used = {int(IPv4Address(address)) for address in self._journal.items.values()}
        except (ValueError, TypeError) as err:
            log.warning("address file is broken and starts anew file=%s error=%s", file, err)
            file.unlink()
            self._journal, self._used = Journal(file), set()
        self._by_pod: dict[str, str] = self._journal.items
        for address in self._by_pod.values():
            if not self._claim(address):
                log.warning("pod address is also used by another cluster on this machine address=%s", address)
        rng = rng or random.Random()  # noqa: S311 - spreads clusters over the network, guards nothing
        self._last = int(network.network_address) + rng.randrange(network.num_addresses)

    def assign(self, uid: str) -> str:
        """The pod's address; the same one every time.

        Raises:
            RuntimeError: all addresses are in use.
        """
        if uid in self._by_pod:
            return self._by_pod[uid]
        first, size = int(self._network.network_address), self._network.num_addresses
        for step in range(1, size):
            # Onward from the last one: an address that was just given back rests as long as possible.
            candidate = first + (self._last - first + step) % size
            address = str(IPv4Address(candidate))
            if candidate not in self._used and candidate & 0xFF not in (0, 255) and self._claim(address):
                self._last = candidate
                self._used.add(candidate)
                self._journal.put(uid, address)
                return address
        raise RuntimeError(f"no free pod address in {self._network}")

    def keep_only(self, uids: set[str]) -> None:
        """Forget the addresses of pods that are not in `uids`."""
        for uid in set(self._by_pod) - uids:
            self.release(uid)

    def release(self, uid: str) -> None:
        """The pod is gone."""
        address = self._by_pod.get(uid)
        if address is not None:
            self._unclaim(address)
            self._used.discard(int(IPv4Address(address)))
            self._journal.drop(uid)

    def close(self) -> None:
        """Give up all claims; the file is kept for the next agent."""
        for address in list(self._claims):
            self._unclaim(address)

    def _claim(self, address: str) -> bool:
        """Whether the address is now this process's own."""
        claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            claim.bind(f"\0kaito.sh/pod-address/{address}")
        except OSError as err:
            claim.close()
            if err.errno != errno.EADDRINUSE:
                raise
            return False
        self._claims[address] = claim
        return True

    def _unclaim(self, address: str) -> None:
        claim = self._claims.pop(address, None)
        if claim is not None:
            claim.close()
