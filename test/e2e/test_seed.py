"""The seed's own commands, by real kubectl and curl, against the whole product."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from conftest import Stack

pytestmark = [pytest.mark.e2e, pytest.mark.engine, pytest.mark.timeout(400)]

NAME = "workspace-phi-3-mini"
SAMPLES = Path(__file__).parent.parent.parent / "config" / "samples"
SAMPLE = SAMPLES / "1-phi-3-inference.yaml"


@pytest.fixture(scope="module")
def served(stack: Stack) -> Stack:
    """The seed's first manifest, applied and ready."""
    said = stack.run("apply", "-f", str(SAMPLE)).stdout
    assert said.strip() in (f"workspace.kaito.sh/{NAME} created", f"workspace.kaito.sh/{NAME} unchanged")
    stack.wait("WORKSPACEREADY is True", lambda: stack.workspace_is_ready(NAME))
    return stack


def test_the_workspace_table_is_the_one_the_seed_shows(served: Stack) -> None:
    """`kubectl get workspace` has the seed's columns, and True in its three."""
    header, row = [line.split() for line in served.run("get", "workspace").stdout.splitlines()]

    assert header == ["NAME", "INSTANCE", "RESOURCEREADY", "INFERENCEREADY", "WORKSPACEREADY", "AGE"]
    assert row[:5] == [NAME, "Standard_NC6s_v3", "True", "True", "True"]
    assert re.fullmatch(r"(\d+[smhd])+", row[5])


def test_the_service_table_is_the_one_the_seed_shows(served: Stack) -> None:
    """`kubectl get svc NAME` shows a ClusterIP and 80/TCP,29500/TCP."""
    header, row = [line.split() for line in served.run("get", "svc", NAME).stdout.splitlines()]

    assert header == ["NAME", "TYPE", "CLUSTER-IP", "EXTERNAL-IP", "PORT(S)", "AGE"]
    assert row[:2] == [NAME, "ClusterIP"]
    assert row[3:5] == ["<none>", "80/TCP,29500/TCP"]


def test_the_seeds_curl_gets_a_result(served: Stack) -> None:
    """curl with the seed's headers at the ClusterIP answers {"Result": "..."} that begins with the prompt."""
    answer = subprocess.run(
        [
            *["curl", "-sS", "-X", "POST", f"{_url(served)}/chat", "-H", "accept: application/json"],
            *["-H", "Content-Type: application/json", "-d", '{"prompt":"What is KAITO?"}'],
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout

    result = json.loads(answer)["Result"]
    assert result.startswith("What is KAITO?")
    assert len(result) > len("What is KAITO?")


def test_the_seeds_curl_pod_prints_the_result(served: Stack) -> None:
    """`kubectl run -it --rm curl --image=curlimages/curl` prints the answer and leaves no pod."""
    done = served.run(
        *["run", "-it", "--rm", "--restart=Never", "curl", "--image=curlimages/curl", "--", "curl", "-s"],
        *["-X", "POST", f"{_url(served)}/chat", "-H", "accept: application/json"],
        *["-H", "Content-Type: application/json", "-d", '{"prompt":"What is a Machine?"}'],
    )

    assert '{"Result": "What is a Machine?' in done.stdout.replace('":"', '": "')
    assert served.run("get", "pod", "curl", check=False).returncode != 0


def test_the_seeds_slip_stays_not_found(served: Stack) -> None:
    """`kubectl get workspace kaito_workspace_phi_3.yaml` names a file, and is NotFound."""
    done = served.run("get", "workspace", "kaito_workspace_phi_3.yaml", check=False)

    assert done.returncode == 1
    assert 'workspaces.kaito.sh "kaito_workspace_phi_3.yaml" not found' in done.stderr


@pytest.mark.parametrize("kind", ["machines", "nodes", "pods", "deploy", "events"])
def test_every_step_between_can_be_listed(served: Stack, kind: str) -> None:
    """`kubectl get` shows what lies between the Workspace and its answer."""
    assert len(served.run("get", kind).stdout.splitlines()) > 1


def test_describe_and_logs_tell_the_story(served: Stack) -> None:
    """`kubectl describe workspace` shows conditions and events, `kubectl logs` the server's start-up report."""
    told = served.run("describe", "workspace", NAME).stdout
    assert "workspaceReady" in told
    assert "Events:" in told

    pod = served.get("pods", "-l", f"kaito.sh/workspace={NAME}")["items"][0]["metadata"]["name"]
    assert "Phi3" in served.run("logs", pod).stdout


def test_one_machine_and_one_gpu_node_serve_it(served: Stack) -> None:
    """Exactly one Machine exists, and the pod runs on its node."""
    machines = served.get("machines")["items"]
    assert [m["spec"]["taints"] for m in machines] == [[{"key": "sku", "value": "gpu", "effect": "NoSchedule"}]]

    pod = served.get("pods", "-l", f"kaito.sh/workspace={NAME}")["items"][0]
    assert pod["spec"]["nodeName"] == machines[0]["status"]["nodeName"]


def test_the_answer_is_generated_by_the_engine(served: Stack) -> None:
    """The engine's token counter rises by the tokens asked for."""
    before = _generated(served)
    _chat(
        served,
        {"prompt": "Tell me", "generate_kwargs": {"min_length": 1, "max_new_tokens": 7, "ignore_eos": True}},
    )

    assert _generated(served) - before == 7


def test_an_unseen_prompt_varies_with_the_sampling_seed(served: Stack) -> None:
    """Sampling is real: one seed repeats its answer, several seeds differ among themselves."""
    prompt = "purple elephants debate the weather on Tuesdays"

    def ask(seed: int) -> str:
        kwargs = {"seed": seed, "temperature": 1.5, "top_k": 50, "max_new_tokens": 24}
        return str(_chat(served, {"prompt": prompt, "generate_kwargs": kwargs})["Result"])

    assert ask(1) == ask(1)
    assert len({ask(seed) for seed in range(1, 6)}) > 1


def test_an_unknown_preset_is_refused_and_nothing_is_created(served: Stack, tmp_path: Path) -> None:
    """A Workspace with a misspelt preset says so with a suggestion, and no Machine is made for it."""
    manifest = tmp_path / "typo.yaml"
    manifest.write_text(SAMPLE.read_text().replace("phi-3-mini-4k-instruct\n", "phi-3-mini-4k-instuct\n", 1))
    served.run("create", "namespace", "typo")
    done = served.run("apply", "-n", "typo", "-f", str(manifest), check=False)

    def told() -> bool:
        if done.returncode != 0:
            return True
        status = served.get("workspace", NAME, "-n", "typo").get("status", {})
        return "phi-3-mini-4k-instruct" in json.dumps(status.get("conditions", []))

    served.wait("the condition names the right preset", told, 30)
    machines = served.get("machines", "-l", "kaito.sh/workspacenamespace=typo")["items"]
    served.run("delete", "namespace", "typo")

    assert machines == []


def test_a_misspelt_field_is_refused_and_changes_nothing(served: Stack, tmp_path: Path) -> None:
    """`kubectl apply` of a manifest with an unknown field fails and creates nothing."""
    manifest = tmp_path / "field.yaml"
    text = SAMPLE.read_text().replace("instanceType", "instanceTyp").replace(NAME, "misspelt")
    manifest.write_text(text)

    done = served.run("apply", "-f", str(manifest), check=False)

    assert done.returncode != 0
    assert "instanceTyp" in done.stderr
    assert served.run("get", "workspace", "misspelt", check=False).returncode != 0


@pytest.mark.real_in_soak
def test_a_dead_engine_is_told_and_the_pod_recovers(served: Stack) -> None:
    """With the engine killed /chat answers 503, readiness falls, and the restarted pod answers again."""
    url = _pod_url(served)
    subprocess.run(["kill", f"-{signal.SIGKILL.value}", str(_engine_pid(served))], check=True)

    served.wait("/chat answers 503", lambda: _status(url) == 503, 20)
    served.wait("the Workspace is not ready", lambda: not served.workspace_is_ready(NAME), 60)
    served.wait("the Workspace is ready again", lambda: served.workspace_is_ready(NAME), 180)
    assert _status(_pod_url(served)) == 200


def test_deleting_the_workspace_leaves_nothing(served: Stack) -> None:
    """`kubectl delete workspace` takes the Machine, the node, the Deployment and the pods with it."""
    assert served.run("delete", "workspace", NAME, timeout=120).stdout.startswith("workspace.kaito.sh")

    def left() -> list[Any]:
        named = ("machines", "deploy", "pods,svc", "-l", f"kaito.sh/workspace={NAME}")
        kinds = [named[:1], named[1:2], named[2:]]
        return [item for kind in kinds for item in served.get(*kind)["items"]]

    served.wait("nothing is left", lambda: left() == [], 90)
    nodes = [node["metadata"]["name"] for node in served.get("nodes")["items"]]
    assert nodes == ["kaito-local"]


# ------------------------------------------------------------------ helpers


def _url(stack: Stack) -> str:
    service = stack.get("svc", NAME)
    mapped = service["metadata"].get("annotations", {}).get("local.kaito.sh/address")
    if mapped:
        return f"http://{mapped.split(',')[0]}"
    return "http://" + stack.run("get", "svc", NAME, "-o", "jsonpath={.spec.clusterIPs[0]}").stdout


def _pod_url(stack: Stack) -> str:
    pods = stack.get("pods", "-l", f"kaito.sh/workspace={NAME}")["items"]
    return f"http://{pods[0]['status']['podIP']}:5000"


def _chat(stack: Stack, body: dict[str, Any]) -> dict[str, Any]:
    return dict(json.loads(_post(f"{_url(stack)}/chat", body)))


def _post(url: str, body: dict[str, Any]) -> bytes:
    request = urllib.request.Request(
        url, json.dumps(body).encode(), headers={"Content-Type": "application/json"}, method="POST"
    )
    with urllib.request.urlopen(request, timeout=60) as reply:
        return bytes(reply.read())


def _status(url: str) -> int:
    try:
        _post(f"{url}/chat", {"prompt": "hi", "generate_kwargs": {"max_new_tokens": 2}})
    except urllib.error.HTTPError as error:
        error.close()
        return error.code
    except OSError:
        return 0
    return 200


def _generated(stack: Stack) -> float:
    with urllib.request.urlopen(f"{_url(stack)}/metrics", timeout=10) as reply:
        text = reply.read().decode()
    return sum(
        float(line.split()[-1]) for line in text.splitlines() if line.startswith("vllm:generation_tokens_total")
    )


def _engine_pid(stack: Stack) -> int:
    """The engine's process, as the server's start-up report names it; pods are processes of this machine."""
    pod = stack.get("pods", "-l", f"kaito.sh/workspace={NAME}")["items"][0]["metadata"]["name"]
    found = re.search(r"EngineCore (\d+)", stack.run("logs", pod).stdout)
    assert found is not None
    return int(found[1])
