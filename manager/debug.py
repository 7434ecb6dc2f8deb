"""Whether misuse is looked for: a mutated cache object, a blocked event loop, a read before sync, a leaked task.

The checks cost time and memory, so they are off in production and on in our tests. They never change what correct
code does; they only make wrong code fail where the mistake is.
"""

from __future__ import annotations

import os

ENV = "MANAGER_DEBUG"
"""Set to anything but ``0`` or nothing to turn the checks on."""


def enabled() -> bool:
    """Whether this process looks for misuse; asked when a manager or a cache is made, not on hot paths."""
    return os.environ.get(ENV, "") not in ("", "0")
