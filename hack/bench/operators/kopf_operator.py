"""The workload as a kopf operator, with its defaults but for quieter logs.

Usage: python -m hack.bench.operators.kopf_operator KUBECONFIG
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from typing import Any

import kopf


@kopf.on.startup()
def configure(settings: kopf.OperatorSettings, **_: Any) -> None:
    """No Event per log line. Workers stay unlimited: kopf keeps one per object for five idle seconds, and a limit
    would stall it."""
    settings.posting.enabled = False


@kopf.on.login()
def login(**kwargs: Any) -> kopf.ConnectionInfo | None:
    """With the kubeconfig itself: the official client would add its own import to kopf's memory."""
    info: kopf.ConnectionInfo | None = kopf.login_with_kubeconfig(**kwargs)
    return info


@kopf.on.create("bench.kaito.sh", "v1", "benches")
@kopf.on.resume("bench.kaito.sh", "v1", "benches")
@kopf.on.update("bench.kaito.sh", "v1", "benches", field="spec.value")
def follow(spec: kopf.Spec, status: kopf.Status, patch: kopf.Patch, **_: Any) -> None:
    """Makes the status follow the spec; kopf sends the patch."""
    if status.get("observed") != spec["value"]:
        patch.status["observed"] = spec["value"]


if __name__ == "__main__":
    os.environ["KUBECONFIG"] = sys.argv[1]
    logging.basicConfig(level=logging.WARNING)
    asyncio.run(kopf.operator(namespaces=["bench"], standalone=True))
