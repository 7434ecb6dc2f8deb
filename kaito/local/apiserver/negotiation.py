"""Which shape a client wants to see: plain JSON or YAML, a Table, or metadata alone.

In: the Accept header. Out: one of the shapes that this server renders, the client's first choice among them.
Protobuf and CBOR are never chosen; a client that accepts nothing else gets 406 and the list of what is
served, as from a real server.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import orjson
import yaml

from kaito.local.apiserver.errors import StatusError
from manager.types import Obj

__all__ = ["Shape", "encode", "negotiate"]

Form = Literal["full", "table", "partial", "partial-list"]
_FORMS: dict[str, Form] = {
    "Table": "table",
    "PartialObjectMetadata": "partial",
    "PartialObjectMetadataList": "partial-list",
}


@dataclass(frozen=True, slots=True)
class Shape:
    """What to render."""

    form: Form = "full"
    yaml: bool = False
    version: str = "v1"  # of meta.k8s.io, for Table and metadata

    @property
    def content_type(self) -> str:
        """The response's media type."""
        return "application/yaml" if self.yaml else "application/json"


@lru_cache(maxsize=256)
def negotiate(accept: str) -> Shape:
    """The first acceptable shape of an Accept header.

    Raises:
        StatusError: 406, nothing acceptable.
    """
    if not accept.strip():
        return Shape()
    for clause in accept.split(","):
        media, _, rest = clause.strip().partition(";")
        media = media.strip().lower()
        parameters: dict[str, str] = {}
        for part in rest.split(";"):
            key, _, value = part.strip().partition("=")
            parameters[key] = value
        if media in ("application/json", "*/*", "application/*"):
            is_yaml = False
        elif media in ("application/yaml", "application/vnd.kubernetes.yaml"):
            is_yaml = True
        else:
            continue
        wanted = parameters.get("as", "")
        if not wanted:
            return Shape(yaml=is_yaml)
        form = _FORMS.get(wanted)
        if form is None or parameters.get("g", "meta.k8s.io") != "meta.k8s.io":
            continue
        if parameters.get("v", "v1") not in ("v1", "v1beta1"):
            continue
        return Shape(form, is_yaml, parameters.get("v", "v1"))
    raise StatusError(
        406,
        "NotAcceptable",
        "only the following media types are accepted: application/json, application/yaml",
    )


def encode(shape: Shape, value: Obj) -> bytes:
    """The value as bytes of the shape's media type."""
    if shape.yaml:
        return yaml.dump(value, Dumper=yaml.CSafeDumper, sort_keys=True).encode()
    return orjson.dumps(value)
