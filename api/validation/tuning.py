"""The rules for a new tuning workspace."""

from __future__ import annotations

from collections.abc import Iterator

from api.catalog import find_preset, presets
from api.v1alpha1 import DataDestination, DataSource, TuningSpec, Workspace
from api.validation import training_config
from api.validation.images import split_image
from api.validation.inference import retired, unknown_preset
from api.validation.rules import placeholders, shown
from api.validation.switches import Switches
from api.validation.urls import problem_of_url
from api.validation.violation import Violation
from api.validation.world import World

_MOST_URLS = 1000
_IMAGE_HINT = "write registry/repository:tag"
_NO_VOLUMES = "Volume support is not implemented yet"


def rules(ws: Workspace, spec: TuningSpec, switches: Switches, world: World) -> Iterator[Violation]:
    """What is wrong with the tuning half of a Workspace."""
    if ws.resource.count is not None and ws.resource.count > 1:
        yield Violation(
            "resource.count",
            "Tuning does not currently support multinode configurations",
            "remove count or write 1",
        )
    if spec.tuning_method is None:
        yield Violation("tuning.method", f"Method {shown(spec.method)} is not supported", "write lora or qlora")
    if spec.preset is None:
        yield Violation("tuning.preset", "Preset must be specified", "name the model to train an adapter for")
    else:
        yield from _preset(spec.preset.name, switches)
    if spec.input is None:
        yield Violation("tuning.input", "Input must be specified", "name the data set")
    else:
        yield from _input(spec.input, switches)
    if spec.output is None:
        yield Violation("tuning.output", "Output must be specified", "name the image to push the adapter as")
    else:
        yield from _output(spec.output, switches)
    if spec.config and world.config_maps is not None:
        yield from training_config.rules(spec.config, world.config_maps, spec.tuning_method)


def _preset(name: str, switches: Switches) -> Iterator[Violation]:
    preset = find_preset(name)
    if preset is None:
        yield unknown_preset("tuning", name)
    elif preset.tuning is None:
        yield Violation(
            "tuning.preset.name",
            f"Unsupported tuning preset name {shown(name)}: this model can be served and not tuned",
            f"these can: {', '.join(_tunable())}",
        )
    yield from retired(name, "tuning", switches)


def _tunable() -> list[str]:
    return [item.name for item in presets() if item.tuning is not None and item.era == "v0.3"]


def _input(source: DataSource, switches: Switches) -> Iterator[Violation]:
    volume = source.volume_source is not None
    if sum([bool(source.urls), volume, bool(source.image)]) != 1:
        yield Violation(
            "tuning.input", "Exactly one of URLs, Volume, or Image must be specified", "name one place"
        )
    if volume and not switches.volumes:
        yield Violation("tuning.input.volumeSource", _NO_VOLUMES, "use urls or an image")
    if len(source.urls) > _MOST_URLS:
        what = f"{len(source.urls)} URLs are too many for one download"
        yield Violation("tuning.input.urls", what, f"name {_MOST_URLS} at most, or use an image or a volume")
        return
    for index, url in enumerate(source.urls):
        problem = problem_of_url(url, private=switches.private_urls)
        if problem:
            hint = "write https://host/path of a file"
            yield Violation(f"tuning.input.urls[{index}]", f"Invalid URL {shown(url)}: {problem}", hint)
    if source.image:
        yield from _image("tuning.input.image", source.image, "input")


def _output(target: DataDestination, switches: Switches) -> Iterator[Violation]:
    volume = target.volume_source is not None
    if not target.image and not volume:
        yield Violation(
            "tuning.output", "At least one of Volume or Image must be specified", "name an image to push"
        )
    if volume and not switches.volumes:
        yield Violation("tuning.output.volumeSource", _NO_VOLUMES, "use an image")
    if target.image and volume and not switches.output_both:
        yield Violation("tuning.output", "Exactly one of Volume or Image must be specified", "remove one")
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
