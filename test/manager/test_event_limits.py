"""What bounds the events of one object (FW-G15). Pure; time is what the test says."""

from __future__ import annotations

import pytest

from manager.event_limits import COMBINED_ACTION, Aggregator, SpamFilter
from manager.event_series import EventKey, Reference

POD = Reference("v1", "Pod", "n", "p", "u")
KEY = EventKey("Warning", "Act", "Failed", "c", "c-host", POD, None)
COMBINED = KEY._replace(action=COMBINED_ACTION)
pytestmark = pytest.mark.acceptance("FW-G15")


def acting(number: int) -> EventKey:
    return KEY._replace(action=f"Act-{number}")


def test_a_single_event_is_itself() -> None:
    """Nothing is similar to it."""
    assert Aggregator().key(KEY, 0) is KEY


def test_one_event_many_times_is_itself() -> None:
    """More often than similar ones may be: it is one series, whose count is all that grows."""
    aggregator = Aggregator()

    assert all(aggregator.key(KEY, now) is KEY for now in range(50))


def test_nine_similar_events_are_themselves_and_the_tenth_is_combined() -> None:
    """So is whatever new one comes after it; the nine known ones go on as themselves."""
    aggregator = Aggregator()

    assert [aggregator.key(acting(number), number) for number in range(9)] == [acting(n) for n in range(9)]
    assert [aggregator.key(acting(number), number) for number in range(9, 50)] == [COMBINED] * 41
    assert aggregator.key(acting(3), 60) == acting(3)


def test_similar_events_far_apart_are_themselves() -> None:
    """More than ten minutes between one and the next begin anew."""
    aggregator = Aggregator()

    assert all(aggregator.key(acting(number), number * 601.0) == acting(number) for number in range(30))


def test_ten_quiet_minutes_end_the_combining() -> None:
    """Counted from the last similar event, combined or not."""
    aggregator = Aggregator()
    for number in range(12):
        aggregator.key(acting(number), 0)

    assert aggregator.key(acting(20), 600) == COMBINED
    assert aggregator.key(acting(21), 1201) == acting(21)


@pytest.mark.parametrize(
    "other",
    [KEY._replace(reason="Other"), KEY._replace(type="Normal"), KEY._replace(regarding=POD._replace(name="q"))],
    ids=["reason", "type", "object"],
)
def test_what_differs_in_more_than_its_action_is_not_similar(other: EventKey) -> None:
    """Each object, reason and type has its own nine."""
    aggregator = Aggregator()
    for number in range(12):
        aggregator.key(acting(number), 0)

    assert aggregator.key(other, 0) is other


def test_a_source_has_a_burst_of_new_events_about_an_object() -> None:
    """Twenty-five; another object has its own."""
    spam = SpamFilter()

    assert [spam.admits("pod", 0) for _ in range(26)] == [True] * 25 + [False]
    assert spam.admits("other", 0)


def test_the_burst_is_refilled_by_one_each_five_minutes() -> None:
    """Not sooner, and never beyond the burst."""
    spam = SpamFilter()
    for _ in range(25):
        spam.admits("pod", 0)

    assert not spam.admits("pod", 299)
    assert spam.admits("pod", 300)
    assert not spam.admits("pod", 301)
    assert [spam.admits("pod", 1e9) for _ in range(26)] == [True] * 25 + [False]


def test_the_limits_forget_who_was_quiet_longest() -> None:
    """Their memory has a bound; who is forgotten begins with a full burst."""
    spam, aggregator = SpamFilter(burst=1, most=2), Aggregator(similar=2, most=2)
    for number, name in enumerate(("a", "b", "a", "c")):
        spam.admits(name, number)
        aggregator.key(KEY._replace(reason=name), number)

    assert not spam.admits("a", 5)
    assert spam.admits("b", 5)
    assert aggregator.key(KEY._replace(reason="a", action="x"), 5).action == COMBINED_ACTION
    assert aggregator.key(KEY._replace(reason="b", action="x"), 5).action == "x"
