"""The stand-in for Azure's Resource Manager: its file of rules, and what people rehearse with."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from kaito.local.fakearm import Rules
from kaito.local.fakearm.faults import InvalidRules
from provisioner import InstanceRequest, InstanceState
from provisioner.errors import QuotaExceeded, Throttled

pytestmark = pytest.mark.looptime

RULES = """
create_seconds: 180
delete_seconds: 60
max_operations: 4
retry_after: 20
page_size: 50
writes: {burst: 12, per_second: 0.2, retry_after: 30}
faults:
  - {verb: put, sku: "Standard_NC*", answer: quota, body: flat}
  - {verb: put, pool: "k*", answer: throttled, retry_after: 7}
  - {verb: create-operation, outcome: Canceled, delay: 30}
  - {verb: poll, delay: 2.5, times: 0}
"""


def test_rules_come_from_a_file(tmp_path: Path) -> None:
    """Everything that can be said about its behaviour is said in YAML."""
    path = tmp_path / "rules.yaml"
    path.write_text(RULES)

    rules = Rules.load(path)

    assert (rules.create_seconds, rules.max_operations, rules.page_size) == (180, 4, 50)
    assert rules.writes is not None
    assert [fault.verb for fault in rules.faults] == ["put", "put", "create-operation", "poll"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("create_secs: 3", "create_secs"),
        ("faults: [{verb: patch}]", "faults.0.verb"),
        ("faults: [{verb: put, answer: nonsense}]", "nonsense: not one of"),
        ("faults: {", "rules.yaml"),
        ("writes: {burst: 0, per_second: 1}", "writes.burst"),
    ],
)
def test_unusable_rules_say_where(tmp_path: Path, text: str, words: str) -> None:
    """The file and the place in it are named."""
    path = tmp_path / "rules.yaml"
    path.write_text(text)
    with pytest.raises(InvalidRules, match=words):
        Rules.load(path)


async def test_faults_are_spent_from_top_to_bottom(
    azure_with: Callable[..., Awaitable[Any]], ask: Callable[..., InstanceRequest], tmp_path: Path
) -> None:
    """A script of faults: quota, then throttling, then a creation that is cancelled after a slow operation."""
    path = tmp_path / "rules.yaml"
    path.write_text(RULES)
    azure = await azure_with(Rules.load(path))
    provider = azure.provider()

    with pytest.raises(QuotaExceeded):
        await provider.create(ask(provider))
    with pytest.raises(Throttled) as caught:
        await provider.create(ask(provider))
    assert caught.value.retry_after == 7
    await asyncio.sleep(8)
    started = await provider.create(ask(provider))
    await asyncio.sleep(200)
    assert (await provider.resume(started.name, started.operation)).state is InstanceState.CREATING
    await asyncio.sleep(20)
    failed = await provider.resume(started.name, started.operation)

    assert failed.state is InstanceState.FAILED
    assert azure.transcript[:3] == [f"put {started.name} {status}" for status in (400, 429, 201)]


async def test_other_clusters_are_not_there(azure: Any) -> None:
    """A wrong subscription, group or cluster is told as ARM tells it, and never as a pool that is gone."""
    for wrong, words in (
        ({"subscription_id": "other"}, "subscription"),
        ({"resource_group": "other"}, "Resource group"),
        ({"cluster": "other"}, "managedClusters"),
    ):
        with pytest.raises(Exception, match=words) as caught:
            await azure.provider(**wrong).get("kabc")
        assert type(caught.value).__name__ == "Misconfigured"


async def test_the_journal_holds_no_token(azure: Any, ask: Callable[..., InstanceRequest]) -> None:
    """What is kept of a request says that there was a bearer token, and not which."""
    provider = azure.provider()
    await provider.create(ask(provider))
    (exchange,) = azure.arm.journal.exchanges
    assert exchange.headers["authorization"] == "Bearer"
    assert "static" not in str(exchange)
