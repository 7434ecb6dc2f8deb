"""A model that is spread over several workers, on one node and on two, with the real engine: KAITO_SOAK=1 alone,
since each start takes half a minute of both cores."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
from collections.abc import Iterator
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

import aiohttp
import pytest

from inference_server.testing.served import Served

pytestmark = [
    pytest.mark.engine,
    pytest.mark.timeout(900),
    pytest.mark.skipif(find_spec("vllm") is None, reason="the engine is not installed"),
]

_BODY = {"prompt": "What is KAITO?", "generate_kwargs": {"do_sample": False, "max_new_tokens": 8}}
SOAK = bool(os.environ.get("KAITO_SOAK"))


@pytest.fixture(scope="module")
def four_heads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stand-in's shape with four heads and random weights: its own three heads cannot be halved."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("models") / "four-heads"
    shutil.copytree(str(files("kaito") / "local/models/tiny-phi3"), folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"num_attention_heads": 4, "num_key_value_heads": 4, "hidden_size": 256}
    (folder / "config.json").write_text(json.dumps(config))
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder)).to(torch.bfloat16).save_pretrained(folder)
    return folder


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator:
    """Starts servers and ends them."""
    # The engine binds one worker per NUMA node, and refuses more of them, unless it is told not to bind any.
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    running: list[Served] = []

    def start(model: Path, *flags: str) -> Served:
        running.append(Served(tmp_path / f"serve-{len(running)}.log", model, *flags))
        return running[-1]

    yield start
    for served in running:
        served.process.send_signal(signal.SIGTERM)
    for served in running:
        served.process.wait(60)


def _meeting_place() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


async def _chat(served: Served) -> tuple[int, dict]:
    async with aiohttp.ClientSession() as session, session.post(f"{served.url}/chat", json=_BODY) as reply:
        return reply.status, await reply.json()


if SOAK:

    async def test_two_workers_answer_together(four_heads, serve):
        """Tensor parallel 2 on one node: half of the heads in each of two processes, one answer."""
        served = serve(four_heads, "--tensor-parallel-size=2")
        served.wait_ready()

        status, body = await _chat(served)

        assert status == 200
        assert body["Result"].startswith(_BODY["prompt"])
        assert len(body["Result"]) > len(_BODY["prompt"])

    async def test_two_nodes_answer_together(four_heads, serve):
        """Tensor parallel 2 over two nodes: the leader answers, and the other says where the answers are."""
        leader = _meeting_place()
        common = ("--nodes=2", "--tensor-parallel-size=2", f"--leader-address={leader}")
        first, second = (serve(four_heads, *common, f"--node-rank=model-{rank}") for rank in (0, 1))
        for served in (first, second):
            served.wait_ready()

        status, body = await _chat(first)
        refused, detail = await _chat(second)

        assert status == 200
        assert len(body["Result"]) > len(_BODY["prompt"])
        assert refused == 503
        assert leader in detail["detail"]

    async def test_a_pipeline_over_two_nodes_answers(tiny_model, serve):
        """Half of the layers on each of two nodes: the same answer as of one process, many requests long."""
        common = ("--nodes=2", "--pipeline-parallel-size=2", f"--leader-address={_meeting_place()}")
        whole = serve(tiny_model)
        whole.wait_ready()
        expected = await _chat(whole)
        parts = [serve(tiny_model, *common, f"--node-rank=model-{rank}") for rank in (0, 1)]
        for served in parts:
            served.wait_ready()

        assert await asyncio.gather(*(_chat(parts[0]) for _ in range(3))) == [expected] * 3

    async def test_heads_that_cannot_be_shared_are_refused_in_the_engine_s_words(serve, tiny_model):
        """Three heads for two workers: the process ends with the engine's own sentence."""
        served = serve(tiny_model, "--tensor-parallel-size=2")

        assert served.process.wait(120) == 1
        said = "Total number of attention heads (3) must be divisible by tensor parallel size (2)"
        assert said in served.log.read_text()
