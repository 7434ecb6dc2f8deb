"""``karpenter.sh/v1``: the NodeClaim, one wanted node in the newer API of node provisioners.

Where a cluster runs Karpenter, its own definition of this kind is the one in force; ours is for clusters without.
"""

from __future__ import annotations

from api.v1.nodeclaim import (
    API_VERSION,
    GROUP,
    KIND,
    PLURAL,
    VERSION,
    NodeClaim,
    NodeClaimSpec,
    NodeClaimStatus,
    NodeClassRef,
    Requirement,
    Taint,
)

__all__ = [
    "API_VERSION",
    "GROUP",
    "KIND",
    "PLURAL",
    "VERSION",
    "NodeClaim",
    "NodeClaimSpec",
    "NodeClaimStatus",
    "NodeClassRef",
    "Requirement",
    "Taint",
]
