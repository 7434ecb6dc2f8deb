"""CPU and memory of a process and of all that it started, from /proc (Linux)."""

from __future__ import annotations

import os
from pathlib import Path


def cpu_seconds(pid: int | None = None) -> tuple[float, float]:
    """CPU seconds so far of the process itself and of its descendants together."""
    root = pid or os.getpid()
    return _threads(root), sum(_threads(child) for child in descendants(root))


def rss_bytes(pid: int) -> int:
    """Resident memory of the process itself."""
    for line in _read(f"/proc/{pid}/status").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0


def descendants(root: int) -> set[int]:
    """Processes that this one started, and those that they started."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (stat := _read(f"{entry}/stat")):
            parents[int(entry.name)] = int(stat.rsplit(")", 1)[1].split()[1])
    found = {root}
    while new := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= new
    return found - {root}


def _threads(pid: int) -> float:
    """Nanosecond counts of all threads; a thread that ended is missed, and a serving process ends none."""
    total = 0
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            total += int((_read(f"{task}/schedstat") or "0").split()[0])
    except FileNotFoundError:
        return 0.0
    return total / 1e9


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
