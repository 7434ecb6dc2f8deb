"""placeholder"""

from __future__ import annotations

from typing import Literal

from manager.types import Obj

from .registry import Registry


def api_versions(server_address: str = "") -> Obj: return {}
def api_group_list(registry: Registry) -> Obj: return {}
def api_group(registry: Registry, group: str) -> Obj | None: return None
def api_resource_list(registry: Registry, group: str, version: str) -> Obj | None: return None
def aggregated(registry: Registry, *, core: bool, version: Literal["v2", "v2beta1"] = "v2") -> Obj: return {}
