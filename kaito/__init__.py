"""The front door: the command line, settings, and the composition of the other rooms.

The project ships six top-level packages whose names are plain words (``api``, ``manager``, ...). Another
distribution, or a folder in the current directory, can shadow one of them without any warning from pip, so
the first import of ``kaito`` checks that its siblings are the ones that were installed with it.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent
_SIBLINGS = ("manager", "api", "controllers", "provisioner", "inference_server")


def _check_siblings() -> None:
    for name in _SIBLINGS:
        spec = find_spec(name)
        found = Path(spec.origin).resolve().parent.parent if spec and spec.origin else None
        if found != _ROOT:
            where = f"found in {found}" if found else "missing"
            raise ImportError(
                f"the package '{name}' that belongs to kaito is {where}, expected in {_ROOT}. "
                "Run from another directory, or reinstall kaito in an environment of its own."
            )


_check_siblings()
