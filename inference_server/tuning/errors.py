"""How a tuning run fails: a reason, a sentence, what to do next, and whether repeating it can help.

In: exceptions of torch, of the registry and the file system. Out: ``TuneError``, the only exception that leaves
this room. The exit code tells the Job one thing, whether to run the pod again; the reason says the rest, in the
termination message.
"""

from __future__ import annotations

import errno
from typing import Final

from api.progress import TuneFailure

EXIT_FAILED: Final = 1  # repeating it does not help until somebody acts
EXIT_UNUSABLE: Final = 2  # arguments or training configuration; nothing was trained
EXIT_TEMPORARY: Final = 75  # EX_TEMPFAIL: run it again, it goes on where it was
EXIT_STOPPED: Final = 76  # SIGTERM, and a checkpoint was saved: run it again

_DISK: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_DISK_WORDS: Final = ("no space left on device", "file too large", "disk quota exceeded", "file write failed")
_MEMORY_WORDS: Final = ("out of memory", "can't allocate memory", "cannot allocate memory", "defaultcpuallocator")
_MEMORY_STEP: Final = (
    "use a smaller per_device_train_batch_size or max_length, gradient_checkpointing: true, method qlora, "
    "or an instance type with more GPU memory"
)
_DISK_STEP: Final = "give the volume of the results and the dataset more room, or a smaller save_total_limit"


class TuneError(Exception):
    """A run cannot go on.

    Attributes:
        reason: the word for a condition.
        message: what is the case, one sentence without a final full stop.
        next_step: what a person can do about it.
        temporary: whether the same run may succeed later, with nothing changed.
    """

    def __init__(self, reason: TuneFailure, message: str, next_step: str = "", *, temporary: bool = False) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.next_step = next_step
        self.temporary = temporary

    @property
    def exit_code(self) -> int:
        """What the process ends with."""
        if self.temporary:
            return EXIT_TEMPORARY
        return EXIT_UNUSABLE if self.reason is TuneFailure.CONFIG_INVALID else EXIT_FAILED


def explain(error: BaseException, doing: str) -> TuneError:
    """Any exception as a ``TuneError``; ``doing`` names the stage for a person."""
    if isinstance(error, TuneError):
        return error
    text = one_line(str(error)) or type(error).__name__
    if (isinstance(error, OSError) and error.errno in _DISK) or _says(text, _DISK_WORDS):
        where = f" ({error.filename})" if isinstance(error, OSError) and error.filename else ""
        return TuneError(TuneFailure.DISK_FULL, f"the disk is full while {doing}{where}", _DISK_STEP)
    if isinstance(error, MemoryError) or _says(text, _MEMORY_WORDS):
        return TuneError(TuneFailure.OUT_OF_MEMORY, f"memory ran out while {doing}: {text}", _MEMORY_STEP)
    return TuneError(TuneFailure.TRAINING_FAILED, f"{doing} failed: {type(error).__name__}: {text}")


def one_line(text: str, limit: int = 400) -> str:
    """The text on one line, not longer than a message should be."""
    line = " ".join(text.split())
    return line if len(line) <= limit else f"{line[:limit]}..."


def _says(text: str, words: tuple[str, ...]) -> bool:
    lower = text.lower()
    return any(word in lower for word in words)
