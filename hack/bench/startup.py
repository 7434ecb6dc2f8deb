"""How long the embedded cluster takes to start, and what its processes weigh.

Each round starts a cluster in a new folder and stops it. Printed are median, least and most of: the time from the
start to the API server's first answer, to the operator being ready, the resident memory of each process once the
cluster is ready, and the time to import the ``kaito`` command in a fresh interpreter and to plan a sample
manifest, beside the time of an interpreter that imports nothing (the limit).

Usage: python hack/bench/startup.py [ROUNDS]
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from kaito.local.cluster import Cluster, Options, choose_ports

ROOT = Path(__file__).resolve().parents[2]


async def cluster_round() -> dict[str, float]:
    """One cluster's life: seconds since its start, and MiB."""
    with tempfile.TemporaryDirectory() as folder:
        options = Options.of(Path(folder))
        cluster = Cluster(options, choose_ports(options))
        cluster.write_node_token()
        began = time.perf_counter()
        found: dict[str, float] = {}
        try:
            await cluster.supervisor.start(cluster.apiserver())
            found["API server answers, s"] = time.perf_counter() - began
            await cluster.install()
            async with asyncio.TaskGroup() as group:
                for child in (cluster.node(), cluster.operator()):
                    group.create_task(cluster.supervisor.start(child))
            found["operator ready, s"] = time.perf_counter() - began
            for name in ("apiserver", "node", "operator"):
                pid = cluster.supervisor.pid(name)
                found[f"{name} RSS, MiB"] = _resident(pid) if pid else float("nan")
        finally:
            await cluster.supervisor.stop()
    return found


def _resident(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return float("nan")


def imports_round() -> dict[str, float]:
    """Whole-process seconds of an import of the command, of a plan, and of an interpreter alone."""
    found = {}
    sample = ROOT / "config" / "samples" / "1-phi-3-inference.yaml"
    for name, arguments in (
        ("import kaito.cli, s", ["-c", "import kaito.cli"]),
        ("kaito plan, s", ["-m", "kaito", "plan", "-f", str(sample)]),
        ("interpreter alone, s", ["-c", "pass"]),
    ):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-P", *arguments], check=False, stdout=subprocess.DEVNULL)
        found[name] = time.perf_counter() - began
    return found


def main() -> None:
    """Run the rounds and print a table."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    rows: dict[str, list[float]] = {}
    for number in range(rounds + 1):
        found = asyncio.run(cluster_round()) | imports_round()
        if number == 0:
            continue  # the first round warms the page cache
        for name, value in found.items():
            rows.setdefault(name, []).append(value)
    print(f"{'':26}{'median':>9}{'least':>9}{'most':>9}   ({rounds} rounds after a warm-up)")
    for name, values in rows.items():
        print(f"{name:26}{statistics.median(values):9.2f}{min(values):9.2f}{max(values):9.2f}")


if __name__ == "__main__":
    main()
