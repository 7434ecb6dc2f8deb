"""The state of an event's series (FW-G14): what is to be written when. Pure; time is what the test says."""

from __future__ import annotations

import random

import pytest

from manager.event_series import EventKey, EventSeries, Occurrence, Reference, Series

POD = Reference("v1", "Pod", "n", "p", "u")
KEY = EventKey("Warning", "Act", "Failed", "c", "c-host", POD, None)
pytestmark = pytest.mark.acceptance("FW-G14")


def seen(key: EventKey = KEY, note: str = "x", when: str = "t") -> Occurrence:
    return Occurrence(key, note, when)


def begun(book: EventSeries, *, count: int = 1, now: float = 0) -> Series:
    """A series that the server knows up to this count."""
    series = book.observe(seen(), now, name="e")
    assert series is not None
    book.wrote(series, 1, now)
    for _ in range(count - 1):
        book.observe(seen(), now, name="")
    if count > 1:
        book.wrote(series, count, now)
    return series


def test_the_first_is_created_the_second_makes_a_series_later_ones_only_count() -> None:
    """Three occurrences are two writes."""
    book = EventSeries()

    first = book.observe(seen(when="t1"), 0, name="e")
    assert first is not None
    assert "series" not in first.body("n")
    assert not book.wrote(first, 1, 0)
    second = book.observe(seen(when="t2"), 1, name="")
    assert second is first
    assert second.patch() == {"series": {"count": 2, "lastObservedTime": "t2"}}
    assert not book.wrote(second, 2, 1)
    assert book.observe(seen(when="t3"), 2, name="") is None
    assert first.count == 3


@pytest.mark.parametrize(
    "other",
    [
        KEY._replace(type="Normal"),
        KEY._replace(action="Other"),
        KEY._replace(reason="Other"),
        KEY._replace(controller="d"),
        KEY._replace(instance="d-host"),
        KEY._replace(regarding=POD._replace(uid="v")),
        KEY._replace(related=POD),
    ],
    ids=["type", "action", "reason", "controller", "instance", "regarding", "related"],
)
def test_whatever_differs_but_the_note_is_another_event(other: EventKey) -> None:
    """Each part of the key tells events apart; the note does not."""
    book = EventSeries()
    begun(book)

    another = book.observe(seen(other), 1, name="f")
    same = book.observe(seen(note="y"), 1, name="")

    assert another is not None
    assert another.count == 1
    assert same is not None
    assert (same.count, same.note) == (2, "y")


def test_a_series_that_is_being_written_is_not_handed_out_again() -> None:
    """What occurs meanwhile is counted, and wanted at once only if the server does not know of a series yet."""
    book = EventSeries()
    series = book.observe(seen(), 0, name="e")
    assert series is not None
    for _ in range(4):
        assert book.observe(seen(), 0, name="") is None

    assert book.due(1000) == []
    assert book.wrote(series, 1, 1)
    assert series.patch()["series"]["count"] == 5
    book.observe(seen(), 1, name="")
    assert not book.wrote(series, 5, 2)


def test_a_burst_before_the_first_write_is_one_write() -> None:
    """The Event is created with its count."""
    book = EventSeries()
    series = book.observe(seen(), 0, name="e")
    book.observe(seen(when="t2"), 0, name="")

    assert series is not None
    assert series.body("n")["series"] == {"count": 2, "lastObservedTime": "t2"}
    assert not book.wrote(series, 2, 0)


def test_a_live_series_is_refreshed_after_times_that_double_up_to_five_minutes() -> None:
    """Only if something has occurred since; the clock of each begins with the write before."""
    book = EventSeries()
    series = begun(book, count=2)
    written = []
    for now in range(1, 1500):
        book.observe(seen(), now, name="")
        for wanted in book.due(now):
            assert wanted is series
            written.append(now)
            book.wrote(wanted, wanted.count, now)

    assert written == [30, 90, 210, 450, 750, 1050, 1350]


def test_a_quiet_series_is_finished_with_its_last_count() -> None:
    """Six minutes after the last occurrence; then it is forgotten, and the next occurrence begins a new one."""
    book = EventSeries()
    series = begun(book, count=2)
    series.wait = 300
    book.observe(seen(), 100, name="")
    (refresh,) = book.due(300)
    book.wrote(refresh, 3, 300)
    book.observe(seen(), 310, name="")

    assert book.due(599) == []
    (refresh,) = book.due(600)
    book.wrote(refresh, 4, 600)
    book.observe(seen(), 610, name="")
    assert book.due(610 + 289) == []
    (last,) = book.due(610 + 360)
    assert last.patch()["series"]["count"] == 5
    book.wrote(last, 5, 970)
    assert book.due(980) == []
    assert len(book) == 0
    fresh = book.observe(seen(), 980, name="f")
    assert fresh is not None
    assert (fresh.count, fresh.name) == (1, "f")


def test_an_event_that_stayed_alone_is_forgotten_without_a_write() -> None:
    """Six minutes after it occurred, not before."""
    book = EventSeries()
    begun(book)

    assert book.due(359) == []
    assert len(book) == 1
    assert book.due(360) == []
    assert len(book) == 0


def test_a_refresh_that_fails_is_tried_with_the_next_one() -> None:
    """The series goes on counting."""
    book = EventSeries()
    series = begun(book, count=2)
    book.observe(seen(), 30, name="")
    (refresh,) = book.due(30)
    book.failed(refresh, 40)

    assert book.due(69) == []
    assert book.due(70) == [series]
    assert series.count == 3


def test_a_last_write_that_fails_ends_the_series_all_the_same() -> None:
    """Nobody counts into an Event that is not there."""
    book = EventSeries()
    begun(book, count=2)
    book.observe(seen(), 10, name="")
    (last,) = book.due(370)
    book.failed(last, 380)

    assert len(book) == 0


def test_an_event_that_could_not_be_created_is_forgotten() -> None:
    """The next occurrence tries anew."""
    book = EventSeries()
    first = book.observe(seen(), 0, name="e")
    assert first is not None
    book.failed(first, 120)

    again = book.observe(seen(), 121, name="f")
    assert again is not None
    assert (again.count, again.name) == (1, "f")


def test_what_could_not_be_queued_stays_due() -> None:
    """The next look finds it again."""
    book = EventSeries()
    series = begun(book, count=2)
    book.observe(seen(), 10, name="")
    book.put_back(book.due(30)[0])

    assert book.due(40) == [series]


def test_the_longest_quiet_series_makes_room_for_a_new_one() -> None:
    """Memory has a bound; what is being written is spared."""
    book = EventSeries(most=2)
    writing = book.observe(seen(KEY._replace(reason="B")), 0, name="b")
    begun(book, now=1)
    book.observe(seen(KEY._replace(reason="C")), 2, name="c")

    assert writing is not None
    assert writing.key in book
    assert KEY not in book
    assert len(book) == 2


def test_counts_are_never_lost_or_doubled(seed: int) -> None:
    """Whatever the order of occurrences, writes, failures and time: each Event's last count sums up to all that
    occurred, as long as nothing is given up."""
    rng = random.Random(seed)
    book = EventSeries()
    keys = [KEY._replace(reason=f"R{number}") for number in range(3)]
    server: dict[Series, int] = {}
    out: list[Series] = []
    occurred, now = 0, 0.0
    for _ in range(3000):
        now += rng.choice([0.1, 5, 40, 200])
        if rng.random() < 0.6:
            occurred += 1
            wanted = book.observe(seen(rng.choice(keys)), now, name="e")
            out += [wanted] if wanted is not None else []
        out += book.due(now)
        while out and rng.random() < 0.7:
            series = out.pop(rng.randrange(len(out)))
            server[series] = series.count
            if book.wrote(series, series.count, now):
                out.append(series)
    for series in [*out, *book.unsaid()]:
        server[series] = series.count

    assert sum(server.values()) == occurred
