"""Where the schemas of the built-in kinds come from: the definitions that ``kubernetes-validate`` ships.

In: one JSON file of that distribution (Kubernetes :data:`KUBERNETES_VERSION`), read once, on first need, with
orjson (11 ms for 1.6 MB; importing the distribution itself would cost ten times that). Out: raw schema
fragments by definition name, and the name that belongs to a group, version and kind. Nothing here is changed
after loading; callers must not change what they get.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import orjson

from manager.types import Obj

KUBERNETES_VERSION = "1.36.0"  # the schemas' release; the one whose kubectl this server is tried with
REF_PREFIX = "#/$defs/"
_META = "io.k8s.apimachinery.pkg.apis.meta.v1."
OBJECT_META = _META + "ObjectMeta"
LIST_META = _META + "ListMeta"
DELETE_OPTIONS = _META + "DeleteOptions"
STATUS = _META + "Status"
TABLE_KINDS = (OBJECT_META, LIST_META, DELETE_OPTIONS, STATUS)


class DefinitionsMissing(RuntimeError):
    """The distribution with the schemas is not installed, or lacks the release that is asked for."""


@lru_cache(maxsize=1)
def definitions() -> dict[str, Obj]:
    """All definitions by name, ``$ref`` unresolved.

    Raises:
        DefinitionsMissing: the file is not there.
    """
    spec = find_spec("kubernetes_validate")
    folders = list(spec.submodule_search_locations or ()) if spec else []
    if not folders:
        raise DefinitionsMissing("kubernetes-validate is not installed; install kaito with its dependencies")
    path = Path(folders[0], "kubernetes-json-schema", f"v{KUBERNETES_VERSION}-local", "_definitions.json")
    try:
        loaded: Obj = orjson.loads(path.read_bytes())
    except OSError as error:
        raise DefinitionsMissing(f"kubernetes-validate has no schemas at {path}: {error}") from error
    found: dict[str, Obj] = loaded["$defs"]
    return found


@lru_cache(maxsize=1)
def _names() -> dict[tuple[str, str, str], str]:
    names: dict[tuple[str, str, str], str] = {}
    for name, raw in definitions().items():
        for gvk in raw.get("x-kubernetes-group-version-kind") or ():
            names.setdefault((gvk["group"], gvk["version"], gvk["kind"]), name)
    return names


def definition_name(group: str, version: str, kind: str) -> str | None:
    """The definition of a kind, such as ``io.k8s.api.apps.v1.Deployment``; None for an unknown kind."""
    return _names().get((group, version, kind))
