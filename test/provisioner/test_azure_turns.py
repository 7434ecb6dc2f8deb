"""Who may start an operation, and how fast requests go: the two pure parts that learn from Azure's refusals."""

from __future__ import annotations

import heapq
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provisioner.azure.admission import Admission
from provisioner.azure.pace import Pace


class Cluster:
    """AKS as far as turns are concerned: takes ``allowed`` operations at a time, each ``seconds`` long."""

    def __init__(self, allowed: int, seconds: float = 100.0) -> None:
        self.allowed, self.seconds = allowed, seconds
        self.ends: dict[str, float] = {}
        self.refused = 0
        self._running: list[float] = []
        self.order: list[str] = []

    def put(self, name: str, now: float) -> bool:
        self._running = [end for end in self._running if end > now]
        if len(self._running) >= self.allowed:
            self.refused += 1
            return False
        self.ends[name] = now + self.seconds
        self._running.append(now + self.seconds)
        self.order.append(name)
        return True


def play(admission: Admission, cluster: Cluster, names: list[str], *, late: random.Random | None = None) -> float:
    """Everybody asks until it is done, as told; the time when the last one is."""
    due = [(0.0, number, name) for number, name in enumerate(names)]
    while due:
        now, number, name = heapq.heappop(due)
        if name in cluster.ends:
            if cluster.ends[name] <= now:
                admission.ended(name)
                continue
            admission.seen(name, now)
            heapq.heappush(due, (min(cluster.ends[name], now + 15), number, name))
            continue
        wait = admission.ask(name, now)
        if wait is None and cluster.put(name, now):
            admission.accepted(name, now)
            heapq.heappush(due, (now + 15, number, name))
            continue
        if wait is None:
            wait = admission.refused(name, now)
        assert wait.seconds > 0
        heapq.heappush(due, (now + wait.seconds + (late.random() if late else 0.0), number, name))
    return max(cluster.ends.values())


@pytest.mark.parametrize("allowed", [1, 2, 5, 16])
def test_the_limit_is_found_and_used(allowed: int) -> None:
    """However many AKS takes, nearly all of it is used, in order, and few are refused on the way."""
    admission, cluster = Admission(), Cluster(allowed)
    names = [f"m{number:03}" for number in range(100)]

    end = play(admission, cluster, names)

    assert cluster.order == names
    assert admission.limit in (allowed, allowed + 1)
    assert cluster.refused <= 14
    assert end <= 100 / allowed * 100 * 1.15 + 100


@settings(max_examples=25, deadline=None)
@given(allowed=st.integers(1, 12), many=st.integers(1, 60), mess=st.randoms(use_true_random=False))
def test_everybody_gets_a_turn(allowed: int, many: int, mess: random.Random) -> None:
    """For any limit and any lateness all are done, and nobody waits longer than the whole queue takes."""
    admission, cluster = Admission(), Cluster(allowed)

    end = play(admission, cluster, [f"m{number}" for number in range(many)], late=mess)

    assert len(cluster.order) == many
    assert end <= (many / allowed + 1) * 100 * 1.5 + 200


def test_the_limit_never_exceeds_the_ceiling() -> None:
    """What the settings allow is never tried higher, however much AKS takes."""
    admission, cluster = Admission(ceiling=4), Cluster(100)
    play(admission, cluster, [f"m{number}" for number in range(40)])
    assert admission.limit == 4
    assert cluster.refused == 0


def test_a_place_lapses_when_nobody_comes_back_for_it() -> None:
    """A Machine that is gone while it waits blocks nobody."""
    admission = Admission(ceiling=1)
    assert admission.ask("a", 0) is None
    admission.accepted("a", 0)
    for name in ("gone", "next"):
        assert admission.ask(name, 1) is not None
    admission.ended("a")

    assert admission.ask("next", 2) is not None
    assert admission.waits("gone")
    assert admission.ask("next", 60) is None
    assert not admission.waits("gone")


def test_an_operation_lapses_when_nobody_looks_at_it() -> None:
    """A Machine that was removed by force does not take up room for ever."""
    admission = Admission(ceiling=1)
    assert admission.ask("a", 0) is None
    admission.accepted("a", 0)
    assert admission.ask("b", 299) is not None
    assert admission.ask("b", 301) is None


def test_a_throttled_start_keeps_its_place() -> None:
    """Who could not even ask the cluster is first again when ARM listens."""
    admission = Admission(ceiling=1)
    assert admission.ask("a", 0) is None
    assert admission.ask("b", 0) is not None
    admission.postponed("a", until=100)

    assert admission.ask("b", 100) is not None
    assert admission.ask("a", 100) is None


def test_an_operation_of_an_earlier_process_counts() -> None:
    """After a restart, pools that are seen to be under way take up room like those that were started here."""
    admission = Admission(ceiling=2)
    admission.seen("x", 0)
    admission.seen("y", 0)
    assert admission.ask("z", 1) is not None
    admission.ended("x")
    assert admission.ask("z", 6) is None


def test_the_next_in_line_comes_back_soon_and_the_last_one_later() -> None:
    """Waiting costs few questions: the far end of the queue asks every two minutes."""
    admission = Admission(ceiling=1)
    assert admission.ask("a", 0) is None
    waits = [admission.ask(f"m{number}", 0) for number in range(100)]
    seconds = [wait.seconds for wait in waits if wait is not None]
    assert seconds[:4] == [5, 10, 15, 20]
    assert seconds[-1] == 120
    assert [wait.ahead for wait in waits if wait is not None][:3] == [0, 1, 2]


# ---------------------------------------------------------------------- pace


def test_there_is_no_limit_before_the_first_429() -> None:
    """Requests go as they come."""
    pace = Pace()
    assert [pace.reserve(5.0) for _ in range(3)] == [(0.0, True)] * 3


def test_nobody_goes_before_retry_after_is_over() -> None:
    """All are told to come back, at different moments, and those who wait in place see the hold."""
    pace = Pace()
    pace.throttled(1.0, 1.1, 20)

    told = [pace.reserve(2.0) for _ in range(3)]

    assert [here for _, here in told] == [False] * 3
    waits = [wait for wait, _ in told]
    assert waits[0] == pytest.approx(19.1)
    assert waits[1] - waits[0] == waits[2] - waits[1] == pytest.approx(0.1)
    assert pace.held(2.0) == pytest.approx(19.1)
    assert pace.held(30.0) == 0


def test_a_crowd_of_429s_is_one_sign() -> None:
    """Ten refusals of requests that were under way together slow down once; later ones slow down again."""
    pace = Pace()
    for _ in range(10):
        pace.throttled(1.0, 2.0, None)
    assert pace.interval == pytest.approx(0.1)
    pace.throttled(20.0, 20.1, None)
    assert pace.interval == pytest.approx(0.2)
    assert pace.held(20.1) == 10


def test_the_interval_melts_with_answers_and_has_a_bound() -> None:
    """However long ARM throttled, a good while of answers brings full speed back."""
    pace = Pace()
    for second in range(1, 30):
        pace.throttled(second, second, 0)
    assert pace.interval == 5.0
    for _ in range(60):
        pace.answered()
    assert pace.interval == 0
    assert pace.reserve(100.0) == (0.0, True)


def test_requests_keep_their_interval() -> None:
    """Short waits are waited out in place, one after the other; longer ones are sent away."""
    pace = Pace()
    pace.throttled(0, 0, 0)
    pace.throttled(1, 1, 0)
    waits = [pace.reserve(10.0) for _ in range(13)]
    assert [round(wait, 3) for wait, here in waits if here] == [round(0.2 * number, 3) for number in range(11)]
    assert [here for _, here in waits[11:]] == [False, False]
