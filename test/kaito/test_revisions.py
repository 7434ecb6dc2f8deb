"""What `kaito rollback` changes and what it refuses, and how `kaito history` words differences."""

from __future__ import annotations

from typing import Any

import pytest

from kaito.errors import CliError
from kaito.revisions import Entry, changes, choose, refuse_immutable, with_halves

Json = dict[str, Any]

RESOURCE: Json = {"instanceType": "Standard_NC6s_v3", "labelSelector": {"matchLabels": {"apps": "phi-3"}}}
PHI: Json = {"preset": {"name": "phi-3-mini-4k-instruct"}}


def workspace(**parts: Any) -> Json:
    meta = {"name": "w", "namespace": "ns", "uid": "u"}
    return {"apiVersion": "kaito.sh/v1alpha1", "kind": "Workspace", "metadata": meta, **parts}


def entry(number: int, *, current: bool = False) -> Entry:
    return Entry(number, f"hash{number}", "", {}, current, running=False)


def test_differences_are_named_where_they_are() -> None:
    """Mappings are looked into, lists and values are told whole, and absence is None."""
    before = {"inference": {"preset": {"name": "a"}, "config": "c"}}
    after = {"inference": {"preset": {"name": "a"}, "adapters": [1]}, "resource": {"count": 1}}

    found = [(item.path, item.before, item.after) for item in changes(before, after)]

    assert found == [
        ("inference.adapters", None, [1]),
        ("inference.config", "c", None),
        ("resource", None, {"count": 1}),
    ]


def test_a_revision_replaces_all_that_it_holds() -> None:
    """What came after it goes, and metadata and status stay."""
    now = workspace(resource=RESOURCE, inference={**PHI, "config": "c"}, status={"state": "Ready"})

    wanted = with_halves(now, {"resource": RESOURCE, "inference": PHI})

    assert wanted == workspace(resource=RESOURCE, inference=PHI, status={"state": "Ready"})


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"resource": {**RESOURCE, "count": 2}, "inference": PHI}, "resource.count: field is immutable"),
        (
            {"resource": RESOURCE, "inference": {"preset": {"name": "phi-2"}}},
            "inference.preset: field is immutable",
        ),
    ],
)
def test_what_may_not_change_is_refused_before_anything_is_sent(data: Json, words: str) -> None:
    """The field is named in the words of the admission rules, with a way to go on."""
    now = workspace(resource=RESOURCE, inference=PHI)

    with pytest.raises(CliError, match=words) as refused:
        refuse_immutable(now, with_halves(now, data), 1)

    assert refused.value.next_step


def test_what_may_change_is_not_refused() -> None:
    """Adapters, settings and a template's content go back."""
    now = workspace(
        resource=RESOURCE, inference={**PHI, "adapters": [{"source": {"name": "a", "image": "e.com/a:1"}}]}
    )

    refuse_immutable(now, with_halves(now, {"resource": RESOURCE, "inference": PHI}), 1)


@pytest.mark.parametrize(
    ("numbers", "current", "to", "chosen"),
    [((1, 2, 3), 3, None, 2), ((1, 2, 3), 2, None, 1), ((1, 2), None, None, 2), ((1, 2, 3), 3, 1, 1)],
)
def test_without_a_number_the_one_before_is_meant(
    numbers: tuple[int, ...], current: int | None, to: int | None, chosen: int
) -> None:
    """The newest before the current one; the newest of all where the current one is not noted yet."""
    entries = [entry(number, current=number == current) for number in numbers]

    assert choose(entries, to, "w").number == chosen


@pytest.mark.parametrize(
    ("numbers", "to", "words"), [((1,), None, "no earlier"), ((), None, "no earlier"), ((1,), 4, "no revision 4")]
)
def test_nothing_to_go_back_to_is_told(numbers: tuple[int, ...], to: int | None, words: str) -> None:
    """The message names what there is."""
    with pytest.raises(CliError, match=words) as refused:
        choose([entry(number, current=True) for number in numbers], to, "w")

    assert "kaito history w" in refused.value.next_step
