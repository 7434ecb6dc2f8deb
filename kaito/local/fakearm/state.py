"""What outlives the stand-in's process: pools, operations, and the access tokens that it gave out.

In: the state after every change. Out: one JSON file, replaced in one step and readable by its owner alone.
Operations that had ended long ago are dropped. A file that is damaged is told, and the stand-in starts empty: it
is a toy's memory, and the cluster notices that its pools are gone.
"""

from __future__ import annotations

import json
import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

from kaito.local.fakearm.answers import Answer
from kaito.local.fakearm.pools import Operation, Pools
from kaito.local.pki import write_private

log = logging.getLogger("kaito.local.fakearm.state")

_KEPT = 200  # operations


def save(path: Path, pools: Pools, tokens: set[str]) -> None:
    """Write everything."""
    operations = [asdict(operation) for operation in list(pools.operations.values())[-_KEPT:]]
    content = {"pools": pools.pools, "operations": operations, "count": pools.count, "tokens": sorted(tokens)}
    write_private(path, json.dumps(content).encode())


def load(path: Path, pools: Pools, tokens: set[str]) -> None:
    """Fill ``pools`` and ``tokens`` with what was there."""
    try:
        content: dict[str, Any] = json.loads(path.read_bytes())
        operations = [_operation(item) for item in content["operations"]]
        pools.pools = dict(content["pools"])
        pools.operations = {operation.id: operation for operation in operations}
        pools.count = int(content["count"])
        tokens |= set(content["tokens"])
    except FileNotFoundError:
        return
    except (ValueError, TypeError, KeyError) as error:
        log.warning("the state in %s cannot be read (%s); it starts empty", path, error)


def _operation(item: dict[str, Any]) -> Operation:
    error = item.pop("error")
    return Operation(**item, error=Answer(**error) if error else None)
