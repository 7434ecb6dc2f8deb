"""The rules for a new tuning workspace. What the ConfigMap holds is not looked at: that takes a cluster."""

from __future__ import annotations

from collections.abc import Iterator

from api.catalog import find_preset, presets
from api.v1alpha1 import DataDestination, DataSource, Workspace
from api.validation.rules import placeholders, split_image
from api.validation.violation import Violation

_IMAGE_HINT = "write registry/repository:tag"


def rules(ws: Workspace) -> Iterator[Violation]:
    """What is wrong with the tuning half of a Workspace."""
    spec = ws.tuning
    if spec is None:
        return
    if ws.resource.count is not None and ws.resource.count > 1:
        yield Violation(
            "resource.count",
            "Tuning does not currently support multinode configurations",
            "remove count or write 1",
        )
    if spec.tuning_method is None:
        yield Violation("tuning.method", f"Method {spec.method!r} is not supported", "write lora or qlora")
    if spec.preset is None:
        yield Violation("tuning.preset", "Preset must be specified", "name the model to train an adapter for")
    else:
        yield from _preset(spec.preset.name)
    if spec.input is None:
        yield Violation("tuning.input", "Input must be specified", "name the data set")
    else:
        yield from _input(spec.input)
    if spec.output is None:
        yield Violation("tuning.output", "Output must be specified", "name the image to push the adapter as")
    else:
        yield from _output(spec.output)


def _preset(name: str) -> Iterator[Violation]:
    from api.validation.create import unknown_preset

    preset = find_preset(name)
    if preset is None:
        yield unknown_preset("tuning", name)
    elif preset.tuning is None:
        yield Violation(
            "tuning.preset.name",
            f"Unsupported tuning preset name {name!r}: this model can be served and not tuned",
            f"these can: {', '.join(_tunable())}",
        )


def _tunable() -> list[str]:
    return [item.name for item in presets() if item.tuning is not None and item.era == "v0.3"]


def _input(source: DataSource) -> Iterator[Violation]:
    kinds = [bool(source.urls), source.volume_source is not None, bool(source.image)]
    if sum(kinds) != 1:
        yield Violation("tuning.input", "Exactly one of URLs, Volume, or Image must be specified")
    if source.image:
        yield from _image("tuning.input.image", source.image, "input")


def _output(target: DataDestination) -> Iterator[Violation]:
    if not target.image and target.volume_source is None:
        yield Violation("tuning.output", "At least one of Volume or Image must be specified")
    if not target.image:
        return
    yield from _image("tuning.output.image", target.image, "output")
    if not target.image_push_secret:
        yield Violation(
            "tuning.output.imagePushSecret",
            "Must specify imagePushSecret with destination image",
            "name a Secret of type kubernetes.io/dockerconfigjson",
        )


def _image(path: str, image: str, which: str) -> Iterator[Violation]:
    split = split_image(image)
    if split is None:
        yield Violation(path, f"Invalid image format, require full {which} image URL", _IMAGE_HINT)
        return
    repository = split[0]
    # A placeholder from the examples is admitted, and a warning names it (see warn.py).
    if repository != repository.lower() and not placeholders(repository):
        yield Violation(
            path,
            f"Invalid image format, require full {which} image URL: the repository must be lower-case",
            f"write {repository.lower()}:{split[1]}",
        )
