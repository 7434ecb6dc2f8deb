"""Which source a model's name means: one pure function, asked by the server and by whoever predicts it.

In: what ``--model`` says. Out: one of three kinds. ``oci://registry/repository:tag`` is an image, ``org/name``
or ``org/name@revision`` a repository of the hub, anything that is or looks like a path a folder.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from inference_server.oci.errors import NotFound

IMAGE_SCHEME = "oci://"
_HUB = re.compile(r"(?P<repo>[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95})(?:@(?P<revision>[\w./-]{1,200}))?")


@dataclass(frozen=True, slots=True)
class FolderModel:
    """A folder of this machine; a mounted volume is one."""

    path: Path


@dataclass(frozen=True, slots=True)
class ImageModel:
    """The layers of a container image, or the files of an OCI artifact."""

    image: str


@dataclass(frozen=True, slots=True)
class HubModel:
    """A repository of the model hub at a revision: a branch, a tag, or best a commit."""

    repo: str
    revision: str = "main"


Model = FolderModel | ImageModel | HubModel


def choose(model: str) -> Model:
    """The source. Raises NotFound when the text can be none of the three."""
    if model.startswith(IMAGE_SCHEME):
        return ImageModel(model.removeprefix(IMAGE_SCHEME))
    if model.startswith(("/", ".", "~")) or (model and Path(model).is_dir()):
        return FolderModel(Path(model).expanduser())
    found = _HUB.fullmatch(model)
    if found is None:
        raise NotFound(
            f"{model[:200]!r} is no model",
            "give a folder, org/name[@revision] of the hub, or oci://registry/image:tag",
        )
    return HubModel(found["repo"], found["revision"] or "main")
