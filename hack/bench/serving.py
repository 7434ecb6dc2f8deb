"""What the HTTP server costs: ours beside the engine without HTTP, and beside vLLM's own server.

Four contenders with one engine configuration, all up at the same time, each with its own engine:

  direct    the same requests as calls of AsyncLLM, in one process, no HTTP: the floor
  chat      `kaito serve`, POST /chat
  openai    `kaito serve`, POST /v1/chat/completions
  vllm      vLLM's own server, POST /v1/chat/completions

In each cell (streaming or not, 1, 8, 32 at a time) the rounds of the contenders alternate, in an order that is
drawn anew for each round. Ratios are taken within a round, since others may use the machine too; printed are
their medians and the middle half. The client is raw HTTP in this process; its CPU is measured in each run and
taken out of the wall time (`wall - client CPU / cores`), since the direct calls have no client. CPU is that of
the server's front process, where the HTTP is; the engine's own is shown beside it.

Usage: python -m hack.bench.serving [--rounds 5] [--requests 64] [--tokens 32] [--clients 1000] [--only CELLS]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

from hack.bench.serving_client import connect, post
from hack.bench.serving_direct import PROMPT
from hack.bench.serving_usage import cpu_seconds, rss_bytes

MODEL = str(Path(str(files("kaito.local"))) / "models" / "tiny-phi3")
CONTENDERS = ("direct", "chat", "openai", "vllm")
SEQUENCES = 32
_START_SECONDS = 400
# One thread for each engine: a model of this size gains nothing from two, and a core is left for what is measured.
ENVIRONMENT = os.environ | {
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "OMP_NUM_THREADS": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
}


class Server:
    """A server process on a free port."""

    def __init__(self, log: Path, command: Callable[[int], list[str]]) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.log = log
        with log.open("w") as output:
            self.process = subprocess.Popen(command(self.port), stdout=output, stderr=output, env=ENVIRONMENT)

    def wait(self) -> None:
        """Until it is healthy."""
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=10):
                    return
            except OSError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit(f"a server did not start:\n{self.log.read_text()[-3000:]}") from None
                time.sleep(0.2)


def kaito(port: int, *flags: str) -> list[str]:
    """Our server."""
    return [
        sys.executable, "-P", "-m", "kaito", "serve", f"--model={MODEL}", "--served-model-name=m",
        "--host=127.0.0.1", f"--port={port}", f"--max-num-seqs={SEQUENCES}", "--log-level=warning", *flags,
    ]  # fmt: skip


def vllm(port: int) -> list[str]:
    """vLLM's own server with the same engine."""
    return [
        sys.executable, "-m", "vllm.entrypoints.launchers.api_server.entry", f"--model={MODEL}",
        "--served-model-name=m", "--host=127.0.0.1", f"--port={port}", f"--max-num-seqs={SEQUENCES}",
        "--dtype=bfloat16", "--enforce-eager", f"--kv-cache-memory-bytes={180 << 20}", "--uvicorn-log-level=error",
        "--disable-uvicorn-access-log",
    ]  # fmt: skip


def request(contender: str, stream: bool, tokens: int) -> bytes:
    """A request for exactly so many tokens."""
    if contender == "chat":
        kwargs = {"do_sample": False, "max_new_tokens": tokens, "min_new_tokens": tokens}
        body = {"prompt": PROMPT, "return_full_text": False, "stream": stream, "generate_kwargs": kwargs}
        return post("/chat", body)
    body = {
        "model": "m", "messages": [{"role": "user", "content": PROMPT}], "stream": stream, "temperature": 0,
        "max_tokens": tokens, "min_tokens": tokens, "ignore_eos": True,
    }  # fmt: skip
    return post("/v1/chat/completions", body)


async def drive(server: Server, raw: bytes, concurrency: int, requests: int) -> dict[str, Any]:
    """One run over HTTP."""
    connections = [await connect(server.port) for _ in range(concurrency)]
    numbers = iter(range(requests))
    firsts: list[float] = []

    async def worker(connection: Any) -> None:
        for _ in numbers:
            timing = await connection.send(raw)
            if timing.status != 200:
                raise SystemExit(f"status {timing.status}")
            firsts.append(timing.first)

    before, own, began = cpu_seconds(server.process.pid), time.process_time(), time.perf_counter()
    await asyncio.gather(*map(worker, connections))
    wall, client = time.perf_counter() - began, time.process_time() - own
    after = cpu_seconds(server.process.pid)
    for connection in connections:
        connection.close()
    return {
        "wall": wall,
        "firsts": firsts,
        "front": after[0] - before[0],
        "engine": after[1] - before[1],
        "client": client,
    }


def direct(process: subprocess.Popen[str], **run: Any) -> dict[str, Any]:
    """One run without HTTP."""
    if process.stdin is None or process.stdout is None:
        raise SystemExit("no pipes")
    process.stdin.write(json.dumps(run) + "\n")
    process.stdin.flush()
    found: dict[str, Any] = json.loads(process.stdout.readline())
    return found


def middle(values: list[float]) -> str:
    """Median and the middle half."""
    low, mid, high = statistics.quantiles(values, n=4) if len(values) > 1 else (values[0],) * 3
    return f"{mid:5.2f} [{low:4.2f}-{high:4.2f}]"


def table(
    stream: bool, concurrency: int, runs: dict[str, list[dict[str, Any]]], requests: int, tokens: int
) -> None:
    """Print one cell."""
    cores = os.cpu_count() or 1

    def net(run: dict[str, Any]) -> float:
        return float(run["wall"] - run["client"] / cores)

    print(f"\n{'streaming' if stream else 'whole'}, {concurrency} at a time", flush=True)
    print(
        "  contender  tokens/s  of direct            of vllm              first token ms  x direct"
        "             CPU us/request  us/token  (engine us/token, client us/request)"
    )
    for name in CONTENDERS:
        mine = runs[name]
        of = {
            other: [net(theirs) / net(run) for run, theirs in zip(mine, runs[other], strict=True)]
            for other in ("direct", "vllm")
        }
        firsts = [statistics.median(run["firsts"]) for run in mine]
        base = [statistics.median(run["firsts"]) for run in runs["direct"]]
        cpu = statistics.median(run["front"] for run in mine) / requests * 1e6
        print(
            f"  {name:9}  {statistics.median(requests * tokens / net(run) for run in mine):8.0f}"
            f"  {middle(of['direct'])}  {middle(of['vllm'])}  {statistics.median(firsts) * 1e3:14.1f}"
            f"  {middle([a / b for a, b in zip(firsts, base, strict=True)])}"
            f"  {cpu:14.0f}  {cpu / tokens:8.1f}"
            f"  ({statistics.median(run['engine'] for run in mine) / requests / tokens * 1e6:.0f},"
            f" {statistics.median(run['client'] for run in mine) / requests * 1e6:.0f})",
            flush=True,
        )


async def crowd(server: Server, clients: int, tokens: int) -> None:
    """Many streams at once: all answered, and what they cost in memory."""
    raw = request("openai", True, tokens)
    idle = rss_bytes(server.process.pid)
    peak = idle
    done = asyncio.Event()

    async def watch() -> None:
        nonlocal peak
        while not done.is_set():
            peak = max(peak, rss_bytes(server.process.pid))
            await asyncio.sleep(0.1)

    async def one() -> bool:
        connection = await connect(server.port)
        try:
            timing = await connection.send(raw)
        except ConnectionResetError:
            return False
        finally:
            connection.close()
        # A role, the tokens' parts, the reason, and the end: fewer would be a stream cut short.
        return timing.status == 200 and timing.events >= 3

    watching = asyncio.create_task(watch())
    began = time.perf_counter()
    answered = await asyncio.gather(*(one() for _ in range(clients)))
    wall = time.perf_counter() - began
    done.set()
    await watching
    print(
        f"\n{clients} streams at once, {tokens} tokens each: {sum(answered)} answered, "
        f"{clients - sum(answered)} dropped, "
        f"{wall:.1f} s; front process {idle / 2**20:.0f} MiB before, {peak / 2**20:.0f} MiB at most "
        f"({(peak - idle) / clients / 1024:.0f} KiB a stream)",
        flush=True,
    )


def main() -> None:
    """Everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--clients", type=int, default=1000, help="0: leave the crowd out")
    parser.add_argument("--cells", default="1,8,32")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers are ended, too
    with tempfile.TemporaryDirectory() as folder:
        ours = Server(Path(folder) / "kaito", lambda port: kaito(port, f"--max-queue={asked.clients + 100}"))
        theirs = Server(Path(folder) / "vllm", vllm)
        floor = subprocess.Popen(
            [sys.executable, "-m", "hack.bench.serving_direct", MODEL, str(SEQUENCES)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=ENVIRONMENT,
        )  # fmt: skip
        try:
            ours.wait()
            theirs.wait()
            if floor.stdout is None or floor.stdout.readline() != "ready\n":
                raise SystemExit("the direct engine did not start")
            asyncio.run(cells(asked, ours, theirs, floor))
            if asked.clients:
                asyncio.run(crowd(ours, asked.clients, 16))
        finally:
            for process in (ours.process, theirs.process, floor):
                process.terminate()
            for process in (ours.process, theirs.process, floor):
                process.wait()


async def cells(asked: argparse.Namespace, ours: Server, theirs: Server, floor: subprocess.Popen[str]) -> None:
    """All cells, printed one by one."""
    rng = random.Random(1)
    for stream in (False, True):
        for concurrency in map(int, asked.cells.split(",")):
            requests = asked.requests if concurrency > 1 else max(8, asked.requests // 4)
            runs: dict[str, list[dict[str, Any]]] = {name: [] for name in CONTENDERS}
            for number in range(asked.rounds + 1):
                order = list(CONTENDERS)
                rng.shuffle(order)
                for name in order:
                    if name == "direct":
                        run = direct(
                            floor, concurrency=concurrency, stream=stream, requests=requests, tokens=asked.tokens
                        )
                    else:
                        server = theirs if name == "vllm" else ours
                        run = await drive(server, request(name, stream, asked.tokens), concurrency, requests)
                    if number:  # the first round warms up
                        runs[name].append(run)
            table(stream, concurrency, runs, requests, asked.tokens)


if __name__ == "__main__":
    main()
