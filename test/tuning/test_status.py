"""What a tuning pod answers while it works."""

from __future__ import annotations

import signal
import socket
import threading
import time
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer
from prometheus_client.parser import text_string_to_metric_families

from api.progress import TuneFailure, TuneProgress, TuneStage
from inference_server.tuning.board import Board
from inference_server.tuning.hardware import Hardware
from inference_server.tuning.status import make_app, serving


@pytest.fixture
def board() -> Board:
    """In the middle of training."""
    found = Board()
    found.set(stage=TuneStage.TRAINING, step=3, steps=12, loss=0.25, epoch=0.5)
    return found


@pytest.fixture
async def client(board: Board) -> AsyncIterator[TestClient[Any, Any]]:
    """The application."""
    async with TestClient(TestServer(make_app(board, Hardware()))) as found:
        yield found


async def test_progress_is_the_wire_model(client: TestClient[Any, Any]) -> None:
    """GET /v1/progress answers a TuneProgress; what is not known is absent."""
    reply = await client.get("/v1/progress")
    body = await reply.json()

    assert TuneProgress.model_validate(body).step == 3
    assert "bytesDone" not in body
    assert "seconds_left" not in body


async def test_metrics_are_prometheus_text(client: TestClient[Any, Any]) -> None:
    """The stage is one series with 1, the numbers are gauges, and unknown ones have no series."""
    text = await (await client.get("/metrics")).text()
    found = {
        (sample.name, sample.labels.get("stage")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }

    assert found["kaito_tuning_stage", "Training"] == 1
    assert found["kaito_tuning_stage", "Pushing"] == 0
    assert found["kaito_tuning_loss", None] == 0.25
    assert ("kaito_tuning_remaining_seconds", None) not in found


async def test_who_asks_for_json_gets_the_seed_eras_report(client: TestClient[Any, Any]) -> None:
    """The shape of v0.3, with memory that is not 0.00 GB."""
    body = await (await client.get("/metrics", headers={"Accept": "application/json"})).json()

    assert set(body) == {"gpu_info", "cpu_info"}
    assert set(body["cpu_info"]) == {"load_percentage", "physical_cores", "total_cores", "memory"}
    assert float(body["cpu_info"]["memory"]["total"].removesuffix(" GB")) > 0.1
    assert 0 <= body["cpu_info"]["load_percentage"] <= 100


async def test_health_follows_the_run(client: TestClient[Any, Any], board: Board) -> None:
    """Healthy while it works, 500 with the reason's words once it has failed."""
    assert (await client.get("/health")).status == 200
    board.set(stage=TuneStage.FAILED, reason=TuneFailure.OUT_OF_MEMORY, message="memory ran out")

    reply = await client.get("/healthz")

    assert (reply.status, await reply.json()) == (500, {"detail": "memory ran out"})


async def test_a_port_in_use_is_said_so() -> None:
    """The run does not begin, and says which option to change."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(Exception, match="another program listens there"):
            async with serving(Board(), "127.0.0.1", taken.getsockname()[1]):
                pass


@pytest.mark.engine
def test_training_does_not_hold_up_the_answers(
    zygote: Any, lesson: Any, model_path: Path, tmp_path: Path, make_config: Any
) -> None:
    """While torch trains, progress is answered and moves from step to step."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = tmp_path / "training_config.yaml"
    config.write_text(make_config(max_steps=500))
    run = zygote.start(
        *("-f", config, "--model", model_path, "--data-dir", lesson.file.parent, "--output-dir", tmp_path / "out"),
        *("--metrics-port", port, "--host", "127.0.0.1"),
    )
    steps: list[int] = []
    deadline = time.monotonic() + 60
    while len(set(steps)) < 3 and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/progress", timeout=30) as reply:
                steps.append(TuneProgress.model_validate_json(reply.read()).step or 0)
        except ConnectionError:
            pass
        except OSError as error:
            assert "refused" in str(error)
        threading.Event().wait(0.02)
    run.kill(signal.SIGTERM)

    assert run.wait() == 76, run.text
    assert len(set(steps)) >= 3
    assert steps == sorted(steps)
