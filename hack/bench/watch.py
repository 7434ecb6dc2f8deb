"""What one event of a watch costs from the wire to a reflector's sink.

A server in a process of its own sends the same stream of events again and again, each event in an HTTP chunk of
its own, as kube-apiserver does. Printed is CPU time of this process per event, the least of the rounds, for:
decoding the lines alone with orjson (the floor), the HTTP library's own reading of lines with orjson, batches of
``Client.watch_batches``, and a ``Reflector`` into a sink that keeps nothing.

Usage: python hack/bench/watch.py [EVENTS [ROUNDS]]
"""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable

import aiohttp
import orjson

from manager.client import Client
from manager.config import RestConfig
from manager.reflector import Reflector
from manager.types import Obj, Resource
from manager.watch import WatchEvent

WIDGETS = Resource("bench.test", "v1", "widgets", "Widget")
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
_EMPTY = orjson.dumps(
    {"apiVersion": "bench.test/v1", "kind": "WidgetList", "metadata": {"resourceVersion": "1"}, "items": []}
)


def event(number: int) -> bytes:
    """One event with an object of about 2 KB, in the form of a custom resource with conditions."""
    conditions = [
        {
            "type": f"Condition{index}",
            "status": "True",
            "reason": "AsExpected",
            "message": "everything is as it should be, as far as can be seen from here",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
            "observedGeneration": number,
        }
        for index in range(6)
    ]
    obj = {
        "apiVersion": "bench.test/v1",
        "kind": "Widget",
        "metadata": {
            "name": f"widget-{number}",
            "namespace": "default",
            "uid": f"6f1d9f3e-0000-4000-8000-{number:012d}",
            "resourceVersion": str(number + 2),
            "generation": number,
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"app.kubernetes.io/name": "widget", "app.kubernetes.io/instance": f"i{number}"},
            "annotations": {"bench.test/hash": "0123456789abcdef" * 4},
        },
        "spec": {
            "replicas": 3,
            "image": "registry.test/team/image:v1",
            "args": [f"--flag-{n}=value" for n in range(8)],
        },
        "status": {"conditions": conditions, "phase": "Running", "replicas": 3},
    }
    return orjson.dumps({"type": "MODIFIED", "object": obj}) + b"\n"


async def serve(events: int) -> None:
    """Answer lists with nothing and watches with all events."""
    lines = [event(number) for number in range(events)]
    stream = b"".join(b"%x\r\n%s\r\n" % (len(line), line) for line in lines) + b"0\r\n\r\n"

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if b"watch=true" in head.split(b"\r\n", 1)[0]:
                    writer.write(_HEAD + stream)
                else:
                    answer_head = (
                        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
                    )
                    writer.write(answer_head % len(_EMPTY) + _EMPTY)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


class Nothing:
    """A sink that counts."""

    def __init__(self, wanted: int) -> None:
        self.left, self.done = wanted, asyncio.Event()

    def replace(self, items: list[Obj], version: str) -> None: ...

    def apply(self, events: list[WatchEvent]) -> None:
        self.left -= len(events)
        if self.left <= 0:
            self.done.set()

    def bookmark(self, version: str) -> None: ...

    def resync(self) -> None: ...


async def decode_alone(url: str, events: int) -> None:
    for number in range(events):
        orjson.loads(_LINES[number])


async def readline(url: str, events: int) -> None:
    async with (
        aiohttp.ClientSession(read_bufsize=2**20) as session,
        session.get(f"{url}/x?watch=true") as response,
    ):
        async for line in response.content:
            orjson.loads(line)


async def batches(url: str, events: int) -> None:
    async with Client(RestConfig(server=url)) as client:
        seen = 0
        async for batch in client.watch_batches(WIDGETS, resource_version="1"):
            seen += len(batch)


async def reflector(url: str, events: int) -> None:
    sink = Nothing(events)
    async with Client(RestConfig(server=url)) as client:
        task = asyncio.create_task(Reflector(client, WIDGETS, sink, watch_list=False).run())
        await sink.done.wait()
        task.cancel()
        await asyncio.wait({task})


_LINES: list[bytes] = []
_WAYS: dict[str, Callable[[str, int], Awaitable[None]]] = {
    "orjson alone": decode_alone,
    "aiohttp readline + orjson": readline,
    "Client.watch_batches": batches,
    "Reflector": reflector,
}


async def measure(url: str, events: int, rounds: int) -> None:
    """Print the table."""
    _LINES.extend(event(number) for number in range(events))
    sys.stdout.write(f"{events} events of {len(_LINES[0])} bytes, best of {rounds}; CPU us per event\n")
    floor = 0.0
    for name, way in _WAYS.items():
        best = float("inf")
        for _ in range(rounds):
            gc.collect()
            began = time.process_time()
            await way(url, events)
            best = min(best, time.process_time() - began)
        cost = best / events * 1e6
        floor = floor or cost
        sys.stdout.write(
            f"{name:28} {cost:6.2f}   above the floor {cost - floor:6.2f}   ratio {cost / floor:5.2f}\n"
        )


def main() -> None:
    """Run both processes."""
    if sys.argv[1:2] == ["--serve"]:
        asyncio.run(serve(int(sys.argv[2])))
        return
    events = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    server = subprocess.Popen(
        [sys.executable, __file__, "--serve", str(events)], stdout=subprocess.PIPE, text=True
    )
    try:
        port = server.stdout.readline().strip() if server.stdout else ""
        asyncio.run(measure(f"http://127.0.0.1:{port}", events, rounds))
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()
