"""Which number format a run computes in: what was asked for, lowered to what the device has.

In: the device's facts and the configuration's wish. Out: a format and a sentence about it. Pure. bfloat16 needs
compute capability 8.0 (a V100 has 7.0, a T4 7.5: float16 there, with loss scaling, which the trainer does) or a
CPU with the instructions for it; a CPU without them would emulate it and be slower than float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

_BFLOAT16_FROM: Final = (8, 0)
_FLOAT16_FROM: Final = (5, 3)


class NumberFormat(StrEnum):
    """torch's names."""

    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"
    FLOAT32 = "float32"


@dataclass(frozen=True, slots=True)
class Device:
    """Where it runs. ``capability`` is the GPU's, None on a CPU; ``bfloat16`` is the CPU's."""

    name: str
    capability: tuple[int, int] | None = None
    bfloat16: bool = False

    @property
    def is_gpu(self) -> bool:
        """Whether it is one."""
        return self.capability is not None


def choose_format(device: Device, asked: str | None) -> tuple[NumberFormat, str]:
    """The format, and why it is not the one that was asked for (empty when it is).

    ``asked`` is a torch name, with or without ``torch.``; ``auto`` and None take the best. Raises ValueError.
    """
    wish = (asked or "auto").removeprefix("torch.")
    best = _best(device)
    if wish == "auto":
        return best, ""
    wanted = NumberFormat(wish)
    if wanted is NumberFormat.BFLOAT16 and best is not NumberFormat.BFLOAT16:
        what = "GPUs below compute capability 8.0" if device.is_gpu else "CPUs without its instructions"
        return best, f"bfloat16 is not for {what} ({device.name}): {best} instead"
    if wanted is NumberFormat.FLOAT16 and best is NumberFormat.FLOAT32:
        return best, f"float16 is not trained with on {device.name}: float32 instead"
    if wanted is NumberFormat.FLOAT16 and not device.is_gpu:
        return best, f"float16 is not trained with on a CPU: {best} instead"
    return wanted, ""


def _best(device: Device) -> NumberFormat:
    if device.capability is None:
        return NumberFormat.BFLOAT16 if device.bfloat16 else NumberFormat.FLOAT32
    if device.capability >= _BFLOAT16_FROM:
        return NumberFormat.BFLOAT16
    return NumberFormat.FLOAT16 if device.capability >= _FLOAT16_FROM else NumberFormat.FLOAT32
