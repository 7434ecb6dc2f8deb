"""The pod that a user wrote: kept as it is, but for what it cannot do without (acceptance KS-A13)."""

from __future__ import annotations

from typing import Any

from manager.types import Obj


def template_pod(template: dict[str, Any]) -> Obj:
    """Metadata and spec of the template; whatever else a manifest holds is no part of a pod template."""
    return {key: value for key, value in template.items() if key in ("metadata", "spec")}
