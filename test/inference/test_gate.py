"""The gate: who is let in, who is told to come again and when."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry

from inference_server.gate import Gate
from inference_server.metrics import Metrics
from inference_server.replies import Refusal


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


def gate(registry, clock, **settings) -> Gate:
    made = Gate(Metrics(registry), clock=clock, **settings)
    made.slots = 2
    return made


def test_as_many_may_wait_as_are_answered_at_a_time(registry, clock):
    """Without a figure of its own the queue is one batch long, and the next request is refused and counted."""
    made = gate(registry, clock, queue=None)
    held = [made.admit() for _ in range(4)]
    for one in held:
        one.__enter__()
    assert made.waiting == 2
    with pytest.raises(Refusal) as caught, made.admit():
        pass
    assert caught.value.status == 429
    assert registry.get_sample_value("kaito_ratelimit_rejected_total") == 1
    held[0].__exit__(None, None, None)
    with made.admit():
        pass


def test_a_queue_of_none_answers_at_once_or_not_at_all(registry, clock):
    """With no queue the first request beyond the batch is refused."""
    made = gate(registry, clock, queue=0)
    with made.admit(), made.admit(), pytest.raises(Refusal), made.admit():
        pass


def test_a_large_request_is_let_in_when_there_is_a_place(registry, clock):
    """A request of more sequences than all places is answered, and everybody behind it is refused."""
    made = gate(registry, clock, queue=1)
    with made.admit(50):
        assert made.waiting == 48
        with pytest.raises(Refusal), made.admit():
            pass
    with made.admit():
        assert not made.idle.is_set()
    assert made.idle.is_set()


def test_without_limit_nobody_is_refused(registry, clock):
    """The switch that turns the limit off turns it off."""
    made = gate(registry, clock, queue=0, limited=False)
    with made.admit(100), made.admit():
        assert made.active == 2


def test_retry_after_follows_how_long_answers_take(registry, clock):
    """The wait that a client is told grows with the mean duration and the queue, between 1 s and a minute."""
    made = gate(registry, clock, queue=4)
    assert made.retry_after() == 1
    for _ in range(30):
        with made.admit():
            clock.now += 10
    with made.admit(6):
        assert made.retry_after() == 25  # (4 that wait + 1) x 10 s / 2 at a time
    for _ in range(30):
        with made.admit():
            clock.now += 1000
    assert made.retry_after() == 60
