"""The seed era's report on the machine: GPUs where there are some, else the CPU.

In: torch's facts once something has imported it, and /proc. Out: a dict of that era's shape, with memory in GB as
text (upstream divided MiB by 1024 three times and reported 0.00). Owns the last reading of the CPU's times: load
is what happened between two reports.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, Final

_GB: Final = 1 << 30


class Hardware:
    """Reports."""

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self._proc = proc
        self._last = (0, 0)

    def report(self) -> dict[str, Any]:
        """What ``GET /metrics`` answered in v0.3."""
        torch: Any = sys.modules.get("torch")  # importing it here would stop the loop for seconds
        if torch is not None and torch.cuda.is_available():
            return {
                "gpu_info": [_gpu(torch, index) for index in range(torch.cuda.device_count())],
                "cpu_info": None,
            }
        return {"gpu_info": None, "cpu_info": self._cpu()}

    def _cpu(self) -> dict[str, Any]:
        memory = {}
        for line in (self._proc / "meminfo").read_text(encoding="ascii").splitlines():
            name, _, rest = line.partition(":")
            memory[name] = int(rest.split()[0]) * 1024
        used = memory["MemTotal"] - memory.get("MemAvailable", memory.get("MemFree", 0))
        return {
            "load_percentage": self._load(),
            "physical_cores": self._cores(),
            "total_cores": os.cpu_count(),
            "memory": {"used": _gigabytes(used), "total": _gigabytes(memory["MemTotal"])},
        }

    def _load(self) -> float:
        first = (self._proc / "stat").read_text(encoding="ascii").splitlines()[0]
        times = [int(item) for item in first.split()[1:9]]
        idle, total = times[3] + times[4], sum(times)
        idle_before, total_before = self._last
        self._last = (idle, total)
        passed = total - total_before
        return round(100 * (1 - (idle - idle_before) / passed), 1) if passed > 0 else 0.0

    def _cores(self) -> int | None:
        cores, physical = set(), ""
        for line in (self._proc / "cpuinfo").read_text(encoding="ascii", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "physical id":
                physical = value.strip()
            elif name.strip() == "core id":
                cores.add((physical, value.strip()))
        return len(cores) or os.cpu_count()


def _gpu(torch: Any, index: int) -> dict[str, Any]:
    free, total = torch.cuda.mem_get_info(index)
    return {
        "id": str(index),
        "name": torch.cuda.get_device_name(index),
        "load": _managed(lambda: f"{torch.cuda.utilization(index):.2f}%"),
        "temperature": _managed(lambda: f"{torch.cuda.temperature(index)} C"),
        "memory": {"used": _gigabytes(total - free), "total": _gigabytes(total)},
    }


def _managed(read: Any) -> str | None:
    """What NVIDIA's management library says; None where it is not installed."""
    try:
        return str(read())
    except Exception:  # the library's own errors, of whichever version
        return None


def _gigabytes(size: int) -> str:
    return f"{size / _GB:.2f} GB"
