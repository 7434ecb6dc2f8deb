"""Three repairs that vLLM's CPU build needs, loaded by vLLM into each of its processes.

In: nothing; vLLM calls ``register`` through the entry point group ``vllm.general_plugins``. Out: process state.
1. AMX: Linux grants a process the tile registers only on request, and the grant is lost on exec. With small
   layers nothing in vLLM asks, and its bfloat16 attention then dies of SIGILL on the first token.
2. LoRA: "no adapter" is index -1, which the torch kernels take as the last adapter, so that requests to the
   base model silently answer with somebody's adapter when both share a batch.
3. Seeds: a prompt that is read in several steps has its random state set back after each, by an offset that a
   CPU generator of torch does not have; one seeded request whose prompt shares a step ends the engine.
None does anything on a GPU. Drop 1 when vLLM asks itself, 2 when its pull requests 48421 or 49656 are in the
pinned release, 3 when `_bookkeeping_sync` asks no CPU generator for its offset. A guard beside them keeps an
engine process from outliving its server.
"""

from __future__ import annotations

import ctypes
import logging
import multiprocessing
import multiprocessing.connection
import os
import platform
import signal
import sys
import threading
from typing import Any

logger = logging.getLogger("kaito.inference_server.vllm_plugin")

_SYS_ARCH_PRCTL = 158  # x86-64
_ARCH_REQ_XCOMP_PERM = 0x1023
_XFEATURE_XTILEDATA = 18
_REWINDABLE = "RewindableGenerator"
_PATCHED = "_kaito_masks_missing_adapters"


def register() -> None:
    """Entry point. Idempotent, and never raises: a repair that cannot be made must not keep a GPU server down."""
    request_amx()
    try:
        _mask_missing_adapters()
    except Exception:
        # Another release of vLLM may have moved these names; the base model works without the mask.
        logger.warning("LoRA mask not installed", exc_info=True)
    try:
        _rewindable_generators()
    except Exception:
        logger.warning("random generators not repaired", exc_info=True)
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
