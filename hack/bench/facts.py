"""What a benchmark line says besides its figures: the machine, and what a process used, read from /proc."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_TICKS = os.sysconf("SC_CLK_TCK")


def machine() -> dict[str, Any]:
    """Facts that a reader needs to place the figures: processor, cores, memory, interpreter."""
    cpu = "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            cpu = line.partition(":")[2].strip()
            break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "memory_gib": round(memory, 1),
        "python": platform.python_version(),
        "system": platform.system() + " " + platform.release(),
    }


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process has used: CPU seconds since its start, resident MiB now and at most."""

    cpu: float
    rss: float
    peak: float


def usage(pid: int) -> Usage:
    """Of a process that lives.

    Raises:
        OSError: it does not.
    """
    stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    memory = {"VmRSS": 0.0, "VmHWM": 0.0}
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name in memory:
            memory[name] = int(rest.split()[0]) / 1024
    return Usage((int(stat[11]) + int(stat[12])) / _TICKS, memory["VmRSS"], memory["VmHWM"])
