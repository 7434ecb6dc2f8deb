"""Repairs of vLLM, most of which its CPU build needs, loaded by vLLM into each of its processes.

In: nothing; vLLM calls ``register`` through the entry point group ``vllm.general_plugins``. Out: process state.
1. AMX: Linux grants a process the tile registers only on request, and the grant is lost on exec. With small
   layers nothing in vLLM asks, and its bfloat16 attention then dies of SIGILL on the first token.
2. LoRA: "no adapter" is index -1, which the torch kernels take as the last adapter, so that requests to the
   base model silently answer with somebody's adapter when both share a batch.
3. Seeds: a prompt that is read in several steps has its random state set back after each, by an offset that a
   CPU generator of torch does not have; one seeded request whose prompt shares a step ends the engine.
4. Pipelines: the buffer into which a later part of the model takes what the earlier part hands on is made by a
   rehearsal that the CPU build leaves out when it compiles nothing; the first request then ends the engine.
5. Nodes that meet: torch opens the meeting port at every address of the machine, where only the one that the other
   nodes were told is needed. It asks nobody who he is; and it fails where another program has the port at another
   address, as on a cluster whose pods share a machine.
1 to 4 do nothing on a GPU. Drop 1 when vLLM asks itself, 2 when its pull requests 48421 or 49656 are in the
pinned release, 3 when `_bookkeeping_sync` asks no CPU generator for its offset, 4 when `CPUModelRunner` makes
`intermediate_tensors` without `profile_run`, 5 when torch's `tcp://` rendezvous listens where it is told to. A
guard beside them keeps an engine process from outliving its server.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import logging
import multiprocessing
import multiprocessing.connection
import os
import platform
import signal
import socket
import sys
import threading
from collections.abc import Callable
from typing import Any

logger = logging.getLogger("kaito.inference_server.vllm_plugin")

_SYS_ARCH_PRCTL = 158  # x86-64
_ARCH_REQ_XCOMP_PERM = 0x1023
_XFEATURE_XTILEDATA = 18
_BACKLOG = 1024
_REWINDABLE = "RewindableGenerator"
_PATCHED = "_kaito_masks_missing_adapters"
_BUFFERED = "_kaito_makes_buffers"


def register() -> None:
    """Entry point. Idempotent, and never raises: a repair that cannot be made must not keep a GPU server down."""
    request_amx()
    repairs: dict[Callable[[], None], str] = {
        _mask_missing_adapters: "LoRA mask not installed",
        _rewindable_generators: "random generators not repaired",
        _buffers_between_parts: "pipelines not repaired",
        _meet_at_one_address: "the meeting port is open at all addresses",
    }
    for repair, failing in repairs.items():
        try:
            repair()
        except Exception:
            # Another release of vLLM may have moved the names; what a repair is not needed for works without it.
            logger.warning(failing, exc_info=True)
    die_with_parent()


def request_amx() -> bool:
    """Ask Linux for AMX tile state for this process. True if granted, False where there is none to grant."""
    if sys.platform != "linux" or platform.machine() not in ("x86_64", "AMD64"):
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    return bool(libc.syscall(_SYS_ARCH_PRCTL, _ARCH_REQ_XCOMP_PERM, _XFEATURE_XTILEDATA) == 0)


def _mask_missing_adapters() -> None:
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        return
    from vllm.lora.ops import torch_ops
    from vllm.lora.ops.torch_ops import lora_ops

    if getattr(lora_ops, _PATCHED, False):
        return
    masked = masked_shrink(lora_ops.bgmv_shrink)
    # sgmv_shrink looks the name up in its module, the wrapper for CPUs takes it from the package.
    lora_ops.bgmv_shrink = masked
    torch_ops.bgmv_shrink = masked
    wrapper = sys.modules.get("vllm.lora.punica_wrapper.punica_cpu")
    if wrapper is not None:
        wrapper.bgmv_shrink = masked  # type: ignore[attr-defined]
    setattr(lora_ops, _PATCHED, True)


def masked_shrink(shrink: Any) -> Any:
    """Wrap vLLM's ``bgmv_shrink`` so that rows with a negative adapter index come out as zeros."""

    def bgmv_shrink(
        inputs: Any, lora_b_weights: Any, output_tensor: Any, lora_indices_tensor: Any, scaling: float = 1.0
    ) -> None:
        shrink(inputs, lora_b_weights, output_tensor, lora_indices_tensor, scaling)
        output_tensor.masked_fill_((lora_indices_tensor < 0).unsqueeze(1), 0)

    return bgmv_shrink


def _rewindable_generators() -> None:
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        return
    import torch

    if torch.Generator.__name__ != _REWINDABLE:
        torch.Generator = rewindable(torch.Generator)


def rewindable(generator: Any) -> Any:
    """The class of CPU generators with an offset that can be set, which means: back to the seed.

    vLLM sets back only what was drawn while the prompt was still being read: the seed is where it was before. (A
    request that is preempted and read again draws anew from its seed, where on a GPU it would go on.)
    """

    def set_offset(self: Any, _: int) -> None:
        self.manual_seed(self.initial_seed())

    return type(_REWINDABLE, (generator,), {"get_offset": lambda _: 0, "set_offset": set_offset})


def _buffers_between_parts() -> None:
    from vllm.platforms import current_platform

    # Only workers run a part of a model, and they are always children; elsewhere the import would cost seconds.
    if multiprocessing.parent_process() is None or not current_platform.is_cpu():
        return
    from vllm.distributed import get_pp_group
    from vllm.v1.worker.cpu_model_runner import CPUModelRunner

    if not getattr(CPUModelRunner, _BUFFERED, False):
        load = with_buffer(CPUModelRunner.load_model, lambda: get_pp_group().is_first_rank)
        CPUModelRunner.load_model = load
        setattr(CPUModelRunner, _BUFFERED, True)


def with_buffer(load_model: Any, is_first: Callable[[], bool]) -> Any:
    """Wrap a model runner's ``load_model`` so that all parts but the first have a buffer for what they are handed.

    It is as large as the largest step may be, as the rehearsal would make it.
    """

    @functools.wraps(load_model)
    def load(self: Any, *args: Any, **options: Any) -> None:
        load_model(self, *args, **options)
        if not is_first() and self.intermediate_tensors is None:
            self.intermediate_tensors = self.model.make_empty_intermediate_tensors(
                batch_size=self.max_num_tokens, dtype=self.model_config.dtype, device=self.device
            )

    return load


def _meet_at_one_address() -> None:
    if multiprocessing.parent_process() is None:
        return
    # The package has a function of the module's name, which hides it.
    rendezvous = importlib.import_module("torch.distributed.rendezvous")
    if not hasattr(rendezvous.TCPStore, "__wrapped__"):
        rendezvous.TCPStore = at_its_address(rendezvous.TCPStore)  # type: ignore[attr-defined]


def at_its_address(store: Any) -> Any:
    """Wrap torch's ``TCPStore`` so that whoever is the master listens at the address of its name alone.

    Where that address is not one of this machine, torch opens the port as it always does.
    """

    @functools.wraps(store)
    def make(*args: Any, **options: Any) -> Any:
        if args or not options.get("is_master") or options.get("master_listen_fd") is not None:
            return store(*args, **options)
        try:
            family, _, _, _, address = socket.getaddrinfo(
                options["host_name"], options["port"], type=socket.SOCK_STREAM
            )[0]
            listener = socket.create_server(address[:2], family=family, backlog=_BACKLOG)
        except OSError as error:
            logger.warning("cannot listen at %s alone: %s", options["host_name"], error)
            return store(**options)
        return store(**options, master_listen_fd=listener.detach())

    return make


def die_with_parent() -> None:
    """In a child of a Python server, end this process when that server is gone, however it went."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    # The sentinel is the read end of a pipe that only the parent holds open. PR_SET_PDEATHSIG would not do: it
    # fires already when the parent's starting thread ends.
    watch = threading.Thread(target=_await_end, args=(parent.sentinel,), name="kaito-parent-watch", daemon=True)
    watch.start()


def _await_end(sentinel: int) -> None:
    multiprocessing.connection.wait([sentinel])
    os.kill(os.getpid(), signal.SIGKILL)
