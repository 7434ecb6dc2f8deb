"""The provisioner's acceptance list is shown, name by name.

The list is section 8 of the provisioner's specification: the test names of the upstream provisioner and of the
Karpenter that it is built on, and what this project promises beyond them. A test carries what it shows in a
marker, which makes it part of its id: ``pytest -k PV-launch-creates``. Names of the provider's own tests have no
prefix. Tests of the life cycle run for Machines and NodeClaims alike where both can, so that the groups of the
newer Karpenter (nodeclaim/lifecycle, nodeclaim/garbagecollection, node/termination, node/health) are shown by the
same names. What does not apply stands here with its reason, and nowhere else.
"""

from __future__ import annotations

import re
from pathlib import Path

KARPENTER = {
    "launch": ("creates", "condition", "linked", "insufficient-capacity"),
    "registration": (
        *("matches", "owner", "label", "label-already", "labels", "annotations", "taints", "startup-taints"),
        *("startup-taints-once", "multiple"),
    ),
    "initialization": (
        *("all", "label", "not-ready", "resources-missing", "resources-there", "startup-present"),
        *("startup-removed", "ephemeral-present", "ephemeral-removed"),
    ),
    "liveness": ("registered-past-ttl", "unregistered-past-ttl", "never-launched"),
    "finalizer": ("added",),
    "termination": (
        *("both", "multiple-nodes", "linked", "waits-for-nodes", "not-launched", "no-provider-id"),
        "grace-period",
    ),
    "node": (
        *("deletes-nodes", "deletes-claims", "parallel", "lb-label", "tolerating-pods", "ownerless-pods"),
        *("terminal-pods", "pdb", "noncritical-first", "static-pods", "mirror-pods", "waits-for-all"),
        *("not-drained", "no-instance", "no-claim", "terminating-pods", "volumes", "metrics"),
    ),
    "consistency": ("pdb", "smaller"),
    "repair": ("tolerates", "replaces"),
    "status": ("true-false", "false-true"),
}
UPSTREAM = {
    "e2e": (
        *("one-gpu-node", "ragengine", "delete-claim", "delete-node", "nodeclass-without-labels"),
        *("foreign-nodeclass", "azure-linux", "node-terminates"),
    ),
    "instance-gc": ("with-provider-id", "without-provider-id", "failure"),
}
OURS = {
    "launch": ("terminal",),
    "progress": ("unknown", "usual"),
    "initialization": ("deadline",),
    "resume": ("no-second-put", "token-lost"),
    "wire": ("create", "delete", "list"),
    "kill": ("create", "delete"),
    "gc": (
        *("quiet", "not-ready-9", "not-ready-11", "stop-start", "switched-off", "outage", "orphan-pools"),
        *("ownership", "pool-deleted", "node-deleted", "nodes", "leaked", "random"),
    ),
    "instance-gc": ("foreign",),
    "kinds": ("absent", "late"),
    "crowd": ("",),
    "metrics": ("",),
}

DOES_NOT_APPLY = {
    "disruption: drift 7, emptiness 7, expiration 6, multi 2": "nothing drifts, empties or expires without a "
    "Provisioner or NodePool object; upstream's provisioner has none of them and clears the conditions",
    "launch: deletes on InsufficientCapacity": "PV-launch-insufficient-capacity shows our answer: the claim stays "
    "and says why, because a Workspace's user would otherwise see a claim come and go without a reason",
    "liveness: deleted when never launched past TTL": "PV-liveness-never-launched shows our answer: it stays and "
    "says why, because in a queue of two hundred a new one would only lose its place",
    "garbage collection of v0.29.2, 3 cases": "replaced in the fork by the heartbeat, here by the PV-gc names",
}
"""Group or name to reason."""


def test_every_name_of_the_list_is_shown() -> None:
    """Each is in the marker of a test, and no marker says a name that is not in the list."""
    wanted = {
        f"PV-{group}-{name}".rstrip("-")
        for table in (KARPENTER, UPSTREAM, OURS)
        for group, names in table.items()
        for name in names
    }
    marked: set[str] = set()
    for folder in ("provisioner", "controllers"):
        for file in (Path(__file__).parents[1] / folder).glob("test_*.py"):
            for arguments in re.findall(r"mark\.acceptance\(([^)]*)\)", file.read_text()):
                marked |= set(re.findall(r"\"(PV-[a-z0-9-]+)\"", arguments))

    assert marked == wanted
