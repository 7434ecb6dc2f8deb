"""Public faces that cost nothing until used (PEP 562): each of a package's names is loaded when it is asked for.

The names stand a second time under ``if TYPE_CHECKING:`` in the package, which is where type checkers and editors
see them; a test holds the two together. A name must not be that of a module of the package: importing the module
would put it there instead.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence


def names(
    package: str, modules: Mapping[str, Sequence[str]]
) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """The ``__getattr__`` and ``__dir__`` of a package.

    Args:
        package: its ``__name__``.
        modules: which names each of its modules has.
    """
    homes = {name: module for module, exported in modules.items() for name in exported}

    def get(name: str) -> object:
        home = homes.get(name)
        if home is None:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(f"{package}.{home}"), name)
        setattr(sys.modules[package], name, value)  # so that this is asked once
        return value

    def listing() -> list[str]:
        return sorted({*vars(sys.modules[package]), *homes})

    return get, listing
