"""Words that people type for kinds, addresses of Services, and a server's refusals."""

from __future__ import annotations

from typing import Any

import pytest

from kaito.chat import url_of
from kaito.errors import CliError
from kaito.kube import Mapping, display, refusal, translated
from kaito.resource_commands import check, placed
from kaito.tables import Query
from manager.errors import ConfigError, ConnectionFailed, NotFound, Unauthorized
from manager.resources import DEPLOYMENTS, NODES, PODS
from manager.types import Obj

DEPLOY = Mapping(DEPLOYMENTS, "deployment", ("deploy",))


@pytest.mark.parametrize(
    "word", ["deploy", "deployment", "deployments", "Deployment", "deploy.apps", "deployments.v1.apps"]
)
def test_a_mapping_answers_to_its_names(word: str) -> None:
    """Plural, singular, kind and short names mean a resource, alone, with its group, or with version and group."""
    assert DEPLOY.answers_to(word)


@pytest.mark.parametrize("word", ["deploy.batch", "dep", "deploy.app", "", "apps", "deploy.v2.apps"])
def test_a_mapping_does_not_answer_to_others(word: str) -> None:
    """Parts of names and other groups or versions mean something else."""
    assert not DEPLOY.answers_to(word)


def test_objects_are_shown_as_kubectl_names_them() -> None:
    """The core group has no suffix, others have theirs."""
    assert display(PODS, "a") == "pod/a"
    assert display(DEPLOYMENTS, "a") == "deployment.apps/a"


@pytest.mark.parametrize(
    ("service", "url"),
    [
        ({"metadata": {"name": "a"}, "spec": {"clusterIP": "127.96.0.5"}}, "http://127.96.0.5"),
        ({"metadata": {"name": "a"}, "spec": {"clusterIP": "fd00::5"}}, "http://[fd00::5]"),
        (
            {
                "metadata": {"name": "a", "annotations": {"local.kaito.sh/address": "127.96.0.5:8080, x:1"}},
                "spec": {"clusterIP": "127.96.0.5"},
            },
            "http://127.96.0.5:8080",
        ),
    ],
)
def test_the_address_of_a_service(service: Obj, url: str) -> None:
    """The ClusterIP, unless the node agent has noted an address that works better."""
    assert url_of(service) == url


@pytest.mark.parametrize("ip", [None, "", "None"])
def test_a_headless_service_has_no_address(ip: str | None) -> None:
    """A Service without a ClusterIP is refused with a way to go on."""
    with pytest.raises(CliError) as refused:
        url_of({"metadata": {"name": "a"}, "spec": {"clusterIP": ip}})

    assert "port-forward" in refused.value.next_step


def test_a_refusal_reads_like_kubectls() -> None:
    """NotFound carries kubectl's title and the server's message; 401 says to log in."""
    found = refusal(NotFound(404, "NotFound", 'pods "x" not found'))

    assert f"{found.title}: {found.message}" == 'Error from server (NotFound): pods "x" not found'
    assert "(Unauthorized)" in refusal(Unauthorized(401, "Unauthorized")).message


@pytest.mark.parametrize("error", [ConfigError("no\n  cluster"), ConnectionFailed("refused"), NotFound(404)])
def test_no_foreign_error_leaves(error: Exception) -> None:
    """Every error of the client becomes one of the command, on one line."""
    with pytest.raises(CliError) as refused, translated():
        raise error

    assert "\n" not in refused.value.message


def test_the_manifests_namespace_wins_over_the_contexts() -> None:
    """An object lives in its own namespace, else the one asked for, else the context's; or in none."""
    bare, own = (
        {"kind": "Pod", "metadata": {"name": "a"}},
        {"kind": "Pod", "metadata": {"name": "a", "namespace": "n"}},
    )

    assert placed(own, PODS, None, "default").namespace == "n"
    assert placed(bare, PODS, "m", "default").namespace == "m"
    assert placed(bare, PODS, None, "default").namespace == "default"
    assert placed(own, NODES, None, "default").namespace is None


def test_a_namespace_that_contradicts_the_manifest_is_refused() -> None:
    """-n other than the manifest's own namespace is a mistake, as for kubectl."""
    with pytest.raises(CliError, match='"n" of Pod a is not the namespace "m"') as refused:
        placed({"kind": "Pod", "metadata": {"name": "a", "namespace": "n"}}, PODS, "m", "default")

    assert refused.value.exit_code == 2


@pytest.mark.parametrize(
    "query",
    [
        Query("pods/a", "b", None),
        Query("pods/", None, None),
        Query("pods,svc", None, None),
        Query("pods", "a", None, all_namespaces=True),
        Query("pods", "a", None, selector="x=y"),
        Query("pods", "../nodes", None),
        Query("pods", "..", None),
    ],
)
def test_a_contradictory_query_is_refused(query: Query) -> None:
    """What cannot be meant is refused as unusable arguments, before any request."""
    with pytest.raises(CliError) as refused:
        query.checked()

    assert refused.value.exit_code == 2
    assert refused.value.next_step


def test_kind_and_name_in_one_word() -> None:
    """KIND/NAME is taken apart."""
    assert Query("wk/a", None, None).checked() == Query("wk", "a", None)


def test_all_mistakes_of_all_workspaces_are_named() -> None:
    """A check names every mistake with its Workspace and field, and what was probably meant."""
    spec: Obj = {"apiVersion": "kaito.sh/v1alpha1", "kind": "Workspace"}
    first = {
        **spec,
        "metadata": {"name": "one"},
        "resource": {"instancetype": "x", "labelSelector": {"matchLabels": {"a": "b"}}},
        "inference": {"preset": {"name": "phi-3-mini-4k-instruct"}},
    }
    second = {
        **spec,
        "metadata": {"name": "two"},
        "resource": {"labelSelector": {"matchLabels": {"a": "b"}}},
        "inference": {"preset": {"name": "phi-3-mini"}},
    }
    with pytest.raises(CliError) as refused:
        check([first, second])

    said = refused.value.message
    assert "one: resource.instancetype" in said
    assert "did you mean instanceType?" in said
    assert "two: inference.preset.name" in said
    assert "nothing was changed" in refused.value.next_step


def workspace(**changes: Any) -> Obj:
    """A Workspace for a check, with top-level fields replaced."""
    return {
        "apiVersion": "kaito.sh/v1alpha1",
        "kind": "Workspace",
        "metadata": {"name": "one"},
        "resource": {"labelSelector": {"matchLabels": {"a": "b"}}},
        "inference": {"preset": {"name": "phi-4", "presetOptions": {}}},
        **changes,
    }


def test_what_some_operator_admits_is_not_refused_here() -> None:
    """A part of a GPU, and a data set on this machine, are for the operator at hand to judge."""
    labels = {"labelSelector": {"matchLabels": {"a": "b"}}}
    sliced = workspace(resource=labels | {"partition": {"mode": "mig", "profile": "3g.40gb"}})

    check([sliced])
    with pytest.raises(CliError, match="unknown MIG profile"):
        check([workspace(resource=labels | {"partition": {"mode": "mig", "profile": "x"}})])


def test_settings_in_the_same_files_are_checked() -> None:
    """A ConfigMap that comes with the Workspace is read; one that does not is left to the server."""
    spec = {"preset": {"name": "microsoft/phi-3-mini-4k-instruct"}, "config": "engine"}
    data = {"inference_config.yaml": "vllm: {max-model-len: 20480}"}
    settings: Obj = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "engine"}, "data": data}

    check([workspace(inference=spec)])
    with pytest.raises(CliError, match="max-model-len 20480 exceeds"):
        check([settings, workspace(inference=spec)])


def test_what_will_not_work_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    """A warning goes to standard error, once, and nothing is refused."""
    for _ in range(2):
        check([workspace(inference={"preset": {"name": "phi-2"}})])

    captured = capsys.readouterr()
    assert captured.err.count("Warning: inference.preset.name: upstream has retired phi-2") == 1
    assert captured.out == ""
