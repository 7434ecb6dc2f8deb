"""`GET /metrics` as the seed era had it: what the GPUs, or else the processor, are doing.

In: nvidia-smi's table, or /proc. Out: `{"gpu_info": [...], "cpu_info": null}` or the other way round, with the
seed era's keys and number formats; GPU memory is in GiB as the key says (upstream printed 0.00: it divided MiB by
GiB).
"""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path
from typing import Any

_QUERY = "index,name,utilization.gpu,temperature.gpu,memory.used,memory.total"
_SMI_SECONDS = 5.0
_SAMPLE_SECONDS = 0.1


async def hardware() -> dict[str, Any]:
    """The report. Takes a tenth of a second without a GPU."""
    if shutil.which("nvidia-smi"):
        found = parse_gpus(await _nvidia_smi())
        if found:
            return {"gpu_info": found, "cpu_info": None}
    before = _times()
    await asyncio.sleep(_SAMPLE_SECONDS)
    return {"gpu_info": None, "cpu_info": cpu_info(before, _times(), _read("/proc/meminfo"))}


def parse_gpus(table: str) -> list[dict[str, Any]]:
    """nvidia-smi's rows (CSV without units; memory in MiB)."""
    gpus: list[dict[str, Any]] = []
    for line in table.splitlines():
        cells = [cell.strip() for cell in line.split(",")]
        if len(cells) != 6:
            continue
        index, name, load, temperature, used, total = cells
        gpus.append(
            {
                "id": index,
                "name": name,
                "load": f"{_number(load):.2f}%",
                "temperature": f"{temperature} C",
                "memory": {"used": f"{_number(used) / 1024:.2f} GB", "total": f"{_number(total) / 1024:.2f} GB"},
            }
        )
    return gpus


def cpu_info(before: tuple[int, int], after: tuple[int, int], meminfo: str) -> dict[str, Any]:
    """The processor's part from two readings of (busy, all) ticks."""
    ticks = after[1] - before[1]
    load = 100 * (after[0] - before[0]) / ticks if ticks > 0 else 0.0
    sizes = {line.split(":")[0]: int(line.split()[1]) for line in meminfo.splitlines() if len(line.split()) > 1}
    total, free = sizes.get("MemTotal", 0), sizes.get("MemAvailable", 0)
    return {
        "load_percentage": round(load, 1),
        "physical_cores": _physical_cores(),
        "total_cores": os.cpu_count(),
        "memory": {"used": f"{(total - free) / 2**20:.2f} GB", "total": f"{total / 2**20:.2f} GB"},
    }


async def _nvidia_smi() -> str:
    process = await asyncio.create_subprocess_exec(
        "nvidia-smi",
        f"--query-gpu={_QUERY}",
        "--format=csv,noheader,nounits",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(_SMI_SECONDS):
            output, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        return ""
    return output.decode(errors="replace")


def _times() -> tuple[int, int]:
    numbers = [int(word) for word in _read("/proc/stat").splitlines()[0].split()[1:9]]
    return sum(numbers) - numbers[3] - numbers[4], sum(numbers)  # all but idle and waiting for a disk


def _physical_cores() -> int | None:
    cores = set()
    socket = "0"
    for line in _read("/proc/cpuinfo").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "physical id":
            socket = value.strip()
        elif key.strip() == "core id":
            cores.add((socket, value.strip()))
    return len(cores) or os.cpu_count()


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0  # "[N/A]" where the GPU does not tell


def _read(path: str) -> str:
    return Path(path).read_text(encoding="utf-8", errors="replace")
