"""Node counts of the thin path, and the adapters' wire models."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from api.adapters import AdapterList, ObservedAdapters, WantedAdapter
from api.catalog import find_preset, sku
from api.sizing import gpus_per_node, node_count


@pytest.mark.parametrize(
    ("preset", "instance_type", "written", "nodes"),
    [
        ("phi-3-mini-4k-instruct", "Standard_NC6s_v3", None, 1),
        ("phi-3-mini-4k-instruct", "Standard_NC6s_v3", 3, 3),
        ("llama-2-70b", "Standard_NC96ads_A100_v4", None, 2),
        ("llama-2-13b", "Standard_NC12s_v3", None, 1),
        ("falcon-40b", "Standard_NC6s_v3", None, 1),
        ("phi-2", "Standard_NX", None, 1),
    ],
)
def test_node_count(preset: str, instance_type: str, written: int | None, nodes: int) -> None:
    """A written count is exact; else a distributed preset gets as few nodes as hold it, any other gets one."""
    assert node_count(find_preset(preset), sku(instance_type), written) == nodes


def test_gpus_per_node() -> None:
    """A pod takes all GPUs of its node, or what the preset needs where the type is not known."""
    assert gpus_per_node(find_preset("phi-2"), sku("Standard_NC96ads_A100_v4")) == 4
    assert gpus_per_node(find_preset("falcon-40b"), None) == 2
    assert gpus_per_node(None, None) == 1


def test_wanted_list_is_stable_json() -> None:
    """The ConfigMap's text is camelCase, round-trips, and is the same for the same list."""
    wanted = AdapterList(
        revision="7", adapters=(WantedAdapter(name="a", image="r/a:1", strength=0.5, pull_secrets=("s",)),)
    )

    text = wanted.to_json()

    assert json.loads(text) == {
        "revision": "7",
        "adapters": [{"name": "a", "image": "r/a:1", "strength": 0.5, "pullSecrets": ["s"]}],
    }
    assert AdapterList.model_validate_json(text) == wanted
    assert wanted.to_json() == text


def test_strength_has_bounds() -> None:
    """A strength outside 0 to 1 does not reach a server."""
    with pytest.raises(ValidationError):
        WantedAdapter(name="a", strength=1.5)


def test_observed_list_reads() -> None:
    """The operator reads what a server reports, and ignores what a newer one adds."""
    observed = ObservedAdapters.model_validate(
        {"revision": "7", "adapters": [{"name": "a", "state": "Loaded", "rank": 8, "new": 1}]}
    )

    assert (observed.adapters[0].state, observed.adapters[0].rank) == ("Loaded", 8)
