"""``kaito explain``: the chain in time, the cause that the operator finds, and what to type."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from api.crds import crds
from api.reasons import Reason
from api.training_templates import training_template
from api.v1alpha1 import Workspace
from api.v1alpha1.tuning import TuningMethod
from controllers.resources import MACHINES, WORKSPACES
from controllers.workspace.children import Children
from controllers.workspace.decide import decide
from controllers.workspace.model import Observation
from controllers.workspace.tuning.job import wish
from controllers.workspace.tuning.runs import Ended
from kaito.endpoint import curls, from_outside
from kaito.errors import CliError
from kaito.explain import explain_machine, explain_workspace
from kaito.explain.next import commands
from kaito.explain.render import render
from kaito.explain.run import Request, run
from kaito.local.cluster import put
from kaito.tables import Query, show
from manager.client import Client
from manager.errors import ApiError
from manager.resources import CRDS, SERVICES

Json = dict[str, Any]
NOW = datetime(2026, 11, 20, 12, 0, 0, tzinfo=UTC)
SKU = "Standard_NC6s_v3"


def workspace(name: str = "phi", namespace: str = "team", **more: Any) -> Json:
    return {
        "apiVersion": "kaito.sh/v1alpha1",
        "kind": "Workspace",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "uid": "u1",
            "generation": 1,
            "creationTimestamp": "2026-11-20T11:50:00Z",
            "finalizers": ["workspace.finalizer.kaito.sh"],
        },
        "resource": {"instanceType": SKU, "labelSelector": {"matchLabels": {"apps": "x"}}},
        "inference": {"preset": {"name": "phi-3-mini-4k-instruct"}},
        **more,
    }


def machine(status: str = "False", reason: str = "QuotaExceeded", message: str = "0 of 6 are left") -> Json:
    launched = {
        "type": "MachineLaunched",
        "status": status,
        "reason": reason,
        "message": message,
        "lastTransitionTime": "2026-11-20T11:51:00Z",
    }
    return {
        "kind": "Machine",
        "metadata": {
            "name": "ws1",
            "uid": "m1",
            "creationTimestamp": "2026-11-20T11:50:01Z",
            "labels": {"kaito.sh/workspace": "phi", "kaito.sh/workspacenamespace": "team"},
        },
        "spec": {"requirements": [{"key": "node.kubernetes.io/instance-type", "values": [SKU]}]},
        "status": {"conditions": [launched, {**launched, "type": "Ready"}]},
    }


def seen(obj: Json | None = None, **more: Any) -> Observation:
    obj = obj or workspace()
    return Observation(obj, Workspace.parse(obj), **more)


def happened(about: str, name: str, reason: str, note: str, *, warning: bool = False, count: int = 1) -> Json:
    return {
        "metadata": {"creationTimestamp": "2026-11-20T11:52:00Z"},
        "regarding": {"kind": about, "name": name},
        "reason": reason,
        "note": note,
        "type": "Warning" if warning else "Normal",
        "eventTime": "2026-11-20T11:52:00.123456Z",
        **({"series": {"count": count, "lastObservedTime": "2026-11-20T11:55:00.000000Z"}} if count > 1 else {}),
    }


def test_what_blocks_is_what_the_operator_writes() -> None:
    """Reason and message are those of the status that ``decide`` makes of the same observation."""
    obs = seen(machines=(machine(),))
    chain = explain_workspace(obs, [], NOW)
    written = {item["type"]: item for item in decide(obs, NOW).status["conditions"]}["WorkspaceReady"]

    assert chain.blocking is not None
    assert (chain.blocking.reason, chain.blocking.message) == (written["reason"], written["message"])
    assert chain.exit_code == 1


def test_the_story_in_lines() -> None:
    """The first line is the answer, then what happened in order, then the cause, the turn and the command."""
    chain = explain_workspace(seen(machines=(machine(),)), [], NOW)
    lines = render(chain).splitlines()

    assert lines[0] == "Workspace team/phi: Pending, QuotaExceeded (turn: yours)"
    story = [line.strip() for line in lines if line.startswith("  11:5")]
    assert story == [
        "11:50:00   workspace  phi  created",
        "11:50:01   machine    ws1  created (Standard_NC6s_v3)",
        "11:51:00 ✘ cloud      ws1  QuotaExceeded: 0 of 6 are left",
    ]
    assert any("blocked by QuotaExceeded" in line for line in lines)
    assert "    turn: yours" in lines
    assert "    next: kubectl describe machine ws1" in lines
    assert "is it running?" in lines[-1]


def test_events_join_the_story_once() -> None:
    """Events about what belongs to the chain are told with their count; others, and what objects tell, are not."""
    events = [
        happened("Machine", "ws1", "QuotaExceeded", "again", warning=True, count=7),
        happened("Machine", "other", "QuotaExceeded", "not ours", warning=True),
        happened("Workspace", "phi", "workspaceResourceStatusSuccess", "fine"),
        happened("Machine", "ws1", "Launched", "told by the condition"),
        happened("Machine", "ws1", "Unhealthy", "Startup probe failed: not loaded yet", warning=True),
        happened("ReplicaSet", "other-1", "FailedCreate", "not ours", warning=True),
        happened("ReplicaSet", "phi-77", "FailedCreate", "exceeded quota", warning=True),
    ]
    chain = explain_workspace(seen(machines=(machine(),)), events, NOW)

    from_events = [item for item in chain.moments if item.at > datetime(2026, 11, 20, 11, 51, 30, tzinfo=UTC)]
    assert [(item.text, item.count, item.bad) for item in from_events] == [
        ("FailedCreate: exceeded quota", 1, True),
        ("QuotaExceeded: again", 7, True),
    ]


def test_json_has_all_of_it() -> None:
    """The JSON form is complete and serialisable, and says the same as the text."""
    found = json.loads(json.dumps(explain_workspace(seen(machines=(machine(),)), [], NOW).to_obj()))

    assert found["ready"] is False
    assert found["blocking"]["turn"] == "you"
    assert found["blocking"]["onlyTakesTime"] is False
    assert [item["who"] for item in found["timeline"]] == ["workspace", "machine", "cloud"]


def test_how_long_it_takes_is_told_or_called_unknown() -> None:
    """A stored estimate is counted on to now; without one, the explanation says that nobody knows."""
    creating = machine("Unknown", "InstanceCreating", "the cloud is creating it")
    eta = {"stage": "CreatingMachine", "seconds": 300, "until": "Ready", "basis": "seen 3 times"}
    known = workspace(status={"eta": {**eta, "estimatedAt": "2026-11-20T11:58:00Z"}})

    assert (
        explain_workspace(seen(known, machines=(creating,)), [], NOW).wait == "ready in about 180 s (seen 3 times)"
    )
    assert explain_workspace(seen(machines=(creating,)), [], NOW).wait.startswith("unknown yet")


def test_a_machine_is_a_subject_too() -> None:
    """A Machine is explained with the words that its Workspace shows, and names that Workspace."""
    chain = explain_machine(machine(), [], [], NOW)

    assert render(chain).splitlines()[0] == "Machine ws1: NotReady, QuotaExceeded (turn: yours)"
    assert chain.to_obj()["workspace"] == "team/phi"
    ready = machine("True", "", "")
    assert explain_machine(ready, [], [], NOW).exit_code == 0


def test_an_old_machine_that_leaves_says_so() -> None:
    """One that is being deleted is the operator's to finish."""
    leaving = machine()
    leaving["metadata"]["deletionTimestamp"] = "2026-11-20T11:59:00Z"
    chain = explain_machine(leaving, [], [], NOW)

    assert chain.state == "Deleting"
    assert chain.blocking is not None
    assert chain.blocking.turn == "operator"


@pytest.mark.parametrize("reason", [*map(str, Reason), "QuotaExceeded"])
def test_there_is_always_something_to_type(reason: str) -> None:
    """Every reason has a command, and none begins with one that destroys."""
    facts = {"pod": "p", "node": "n", "machine": "m"}
    found = commands(reason, facts, "phi", "team")

    assert found
    assert found[0].split()[0] in ("kubectl", "kaito")
    assert "delete" not in found[0]


def service(**spec: Any) -> Json:
    return {"metadata": {"name": "phi", "namespace": "team"}, "spec": {"clusterIP": "10.0.0.7", **spec}}


def test_the_url_is_the_one_that_answers() -> None:
    """A ClusterIP needs a way in from outside; a load balancer's address is taken as it is."""
    inside = service()
    outside = {**inside, "status": {"loadBalancer": {"ingress": [{"ip": "20.1.2.3"}]}}}

    assert curls(inside, "m")[0].startswith("curl -X POST http://10.0.0.7/chat ")
    assert from_outside(inside) == "kubectl -n team port-forward service/phi 8080:80"
    assert curls(outside, "m")[1].startswith("curl -X POST http://20.1.2.3/v1/chat/completions ")
    assert from_outside(outside) == ""
    assert len(curls(inside, "")) == 1
    assert curls(service(clusterIP="None"), "m") == []


# ------------------------------------------------------------------ against API servers


@pytest.fixture
async def client(api_server: Any) -> AsyncIterator[Client]:
    async with Client(api_server.config) as client:
        for crd in crds():
            await put(client, CRDS, crd)
        for _ in range(300):
            try:
                await client.list(WORKSPACES, limit=1)
                await client.list(MACHINES, limit=1)
                break
            except ApiError:
                await asyncio.sleep(0.05)
        yield client


async def test_an_operator_that_does_not_run_is_noticed(
    api_server: Any, client: Client, namespace: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A Workspace that nobody has looked at is explained all the same: its status is missing, and that is said."""
    wanted = workspace(namespace=namespace)
    wanted["metadata"] = {"name": "phi", "namespace": namespace}
    await client.create(WORKSPACES, wanted)

    code = await run(Request("phi", namespace, "table", api_server.kubeconfig))

    shown = capsys.readouterr().out
    assert code == 1
    assert shown.startswith(f"Workspace {namespace}/phi: Pending, ")
    assert "the operator has not written a status yet" in shown


@pytest.mark.parametrize(
    ("subject", "words"),
    [
        ("nobody", "there is no workspace 'nobody'"),
        ("machine/nobody", "there is no machine 'nobody'"),
        ("wk/nobody", "there is no wk 'nobody'"),
        ("configmap/x", "workspaces and machines, not configmaps"),
        ("a/b/c", "is not NAME or KIND/NAME"),
        ("machine/", "is not NAME or KIND/NAME"),
    ],
)
async def test_what_is_not_there_is_exit_2(
    api_server: Any, client: Client, namespace: str, subject: str, words: str
) -> None:
    """A subject that does not exist, or that cannot be explained, is told as such."""
    with pytest.raises(CliError) as caught:
        await run(Request(subject, namespace, "table", api_server.kubeconfig))

    assert caught.value.exit_code == 2
    assert words in caught.value.message


def test_the_command_exits_with_2_without_a_subject() -> None:
    """Usage errors have the code of usage errors."""
    done = subprocess.run(
        [sys.executable, "-m", "kaito", "explain"],
        capture_output=True,
        text=True,
        env={**os.environ, "TERM": "dumb"},
        timeout=60,
    )

    assert done.returncode == 2


async def test_get_of_one_workspace_points_on(
    api_server: Any, client: Client, namespace: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Beside its row, one Workspace has the command that explains it or, once ready, the one that calls it."""
    wanted = workspace(namespace=namespace)
    wanted["metadata"] = {"name": "phi", "namespace": namespace}
    await client.create(WORKSPACES, wanted)
    await show(Query("workspace", "phi", namespace), "table", api_server.kubeconfig)
    before = capsys.readouterr()

    ready = {
        "type": "WorkspaceReady",
        "status": "True",
        "reason": "workspaceReady",
        "message": "workspace is ready",
    }
    ready |= {"lastTransitionTime": "2026-11-20T12:00:00Z"}
    await client.patch(
        WORKSPACES, "phi", {"status": {"conditions": [ready]}}, namespace=namespace, subresource="status"
    )
    ports = {"spec": {"ports": [{"port": 80}]}, "metadata": {"name": "phi", "namespace": namespace}}
    await client.create(SERVICES, ports, namespace=namespace)
    await show(Query("workspace", "phi", namespace), "table", api_server.kubeconfig)
    after = capsys.readouterr()

    assert before.err == f"why: kaito explain phi -n {namespace}\n"
    assert after.err.startswith("call: curl -X POST http://")
    assert before.out.splitlines()[0].split()[:2] == ["NAME", "INSTANCE"]


# ------------------------------------------------------------------ tuning


def _tuned(condition: str, code: int, said: Json) -> Observation:
    """A run whose Job is over; its pod is gone, and how it ended is kept on the Job."""
    tuning = {
        "preset": {"name": "phi-3-mini-4k-instruct"},
        "method": "lora",
        "input": {"urls": ["https://example.com/data.parquet"]},
        "output": {"image": "example.com/tuned:1", "imagePushSecret": "push"},
    }
    obj = {key: value for key, value in workspace(tuning=tuning).items() if key != "inference"}
    ended = Ended("phi-1", "p1", "2026-11-20T11:56:00Z", code, said=json.dumps(said))
    settings = {"data": {"training_config.yaml": training_template(TuningMethod.LORA)}}
    obs = Observation(obj, Workspace.parse(obj))
    mark = wish(obs, settings["data"]["training_config.yaml"])
    times = {"status": "True", "lastTransitionTime": "2026-11-20T11:56:01Z"}
    job = {
        "metadata": {
            "name": "phi",
            "uid": "j1",
            "creationTimestamp": "2026-11-20T11:52:00Z",
            "annotations": {"kaito.sh/inputs-hash": mark, "kaito.sh/tuning-outcome": ended.to_text()},
            "ownerReferences": [{"uid": "u1", "controller": True}],
        },
        "spec": {},
        "status": {"conditions": [{"type": condition, **times}]},
    }
    node = {"metadata": {"name": "n", "labels": {"apps": "x"}}, "status": {}}
    children = Children(job=job, configs={"lora-params-template": settings})
    return replace(obs, children=children, nodes=(node,))


def test_the_story_of_a_tuning_run_ends_with_its_image() -> None:
    """Job created, how its process ended, Job completed; nothing blocks, and the node that is kept is named."""
    said = {
        "stage": "Succeeded",
        "message": "the adapter is in example.com/tuned:1",
        "image": "example.com/tuned:1",
    }
    chain = explain_workspace(_tuned("Complete", 0, said), [], NOW)
    texts = [moment.text for moment in chain.moments]

    assert (chain.state, chain.blocking, chain.exit_code) == ("Succeeded", None, 0)
    assert texts.index("Job created") < texts.index("Job completed")
    assert any("the adapter is in example.com/tuned:1" in text for text in texts)
    assert any("is kept, and paid for" in note for note in chain.notes)
    assert chain.to_obj()["tuning"]["image"] == "example.com/tuned:1"


def test_the_story_of_a_failed_run_ends_with_what_to_type() -> None:
    """The program's reason blocks, it is the reader's turn, and the command that runs it again is last."""
    said = {
        "stage": "Failed",
        "reason": "DatasetColumnMissing",
        "message": "no column text",
        "nextStep": "name one",
    }
    chain = explain_workspace(_tuned("Failed", 1, said), [], NOW)

    assert chain.blocking is not None
    assert (chain.blocking.reason, chain.blocking.turn) == ("DatasetColumnMissing", "you")
    assert chain.blocking.next[-1] == "kubectl delete job phi -n team"
    assert any(moment.bad and "no column text" in moment.text for moment in chain.moments)
