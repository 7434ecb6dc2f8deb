"""The switches of admission: read from text, documented, and the eras as they were."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from api.validation import DEFAULT, LENIENT, V012, V03, Switches, UnknownSwitch

DOC = Path(__file__).parents[2] / "docs" / "admission.md"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", DEFAULT),
        ("v0.3", V03),
        ("v0.12", V012),
        ("v0.3,volumes=true", dataclasses.replace(V03, volumes=True)),
        (" private-urls=True , cloud=aws ", Switches(private_urls=True, cloud="aws")),
        ("node-classes=a|b", Switches(node_classes=("a", "b"))),
    ],
)
def test_switches_are_read(text: str, expected: Switches) -> None:
    """An era first, then names with hyphens and their values."""
    assert Switches.parse(text) == expected


@pytest.mark.parametrize("text", ["volumes", "volume=true", "volumes=yes", "cloud=gcp", "volumes=true,v0.3"])
def test_what_is_no_switch_is_told_with_a_way_out(text: str) -> None:
    """A name or value that does not exist is refused, and the message says what does."""
    with pytest.raises(UnknownSwitch) as caught:
        Switches.parse(text)

    assert caught.value.next_step


def test_every_switch_is_documented_with_its_defaults() -> None:
    """The table of docs/admission.md has each switch, and the values that it has by default and in each era."""
    rows = [line for line in DOC.read_text().splitlines() if line.startswith("| `")]
    table: dict[str, list[str]] = {}
    for row in rows:
        names, *values = (cell.strip() for cell in row.strip("|").split("|"))
        for name in names.split(","):
            table[name.strip(" `")] = values[:3]

    for field in dataclasses.fields(Switches):
        values = [getattr(switches, field.name) for switches in (DEFAULT, V03, V012)]
        written = [str(value).lower() if isinstance(value, bool) else value or "any" for value in values]
        assert table.pop(field.name.replace("_", "-")) == written, field.name
    assert table == {}


def test_the_lenient_set_admits_what_any_operator_admits() -> None:
    """Each boolean of the lenient set is the one that refuses less, but for the choice of who makes the nodes."""
    strict = {"require_instance_type", "exact_case", "require_own_label", "fixed_tuning_data", "access_secret"}
    by_choice = {"node_auto_provisioning", "model_streaming"}
    for field in dataclasses.fields(Switches):
        value = getattr(LENIENT, field.name)
        if isinstance(value, bool) and field.name not in by_choice:
            assert value is (field.name not in strict), field.name
