"""The token of an operation under way, as it is kept on a Machine.

In: what was started, and the SDK's own continuation token. Out: one line of text that a restarted process, perhaps
of a newer release, can read back. It says which pool and which verb it is about, so that a token that was copied
to another Machine is seen to be of no use. The token is not trusted: whoever may edit a Machine may have written
it, and where it leads is checked again when it is followed.
"""

from __future__ import annotations

from dataclasses import dataclass

from provisioner.azure.body import Offering

_VERSION = "1"
CREATE = "create"
DELETE = "delete"


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation on one pool; ``continuation`` is the SDK's, and opaque."""

    verb: str
    pool: str
    offering: Offering
    continuation: str

    def encode(self) -> str:
        """The token as text: about 5 kB, most of it the reply to the PUT."""
        offering = self.offering
        parts = (_VERSION, self.verb, self.pool, offering.instance_type, offering.capacity_type)
        return ".".join((*parts, self.continuation))

    @classmethod
    def decode(cls, text: str, pool: str) -> Operation | None:
        """The operation that a token names; None when it is not one of this pool's."""
        parts = text.split(".", 5)
        if len(parts) != 6 or parts[0] != _VERSION or parts[1] not in (CREATE, DELETE) or parts[2] != pool:
            return None
        return cls(parts[1], pool, Offering(parts[3], parts[4]), parts[5])
