"""What config/ ships: buildable, old enough for Kubernetes 1.20, least privilege, accepted by every API server."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from api.webhook import CONFIGURATION
from manager.certs.injection import VALIDATING
from manager.client import Client
from manager.resources import CRDS

if TYPE_CHECKING:
    from manager.config import RestConfig
    from manager.testing.controlplane import ControlPlane
    from manager.types import Obj

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "config"
SAMPLES = sorted((CONFIG / "samples").glob("*.yaml"))

# What Kubernetes 1.20 serves of the kinds that we may ship.
OLD_ENOUGH = {
    "v1/ConfigMap",
    "v1/Namespace",
    "v1/ServiceAccount",
    "v1/Service",
    "apps/v1/Deployment",
    "apps/v1/DaemonSet",
    "rbac.authorization.k8s.io/v1/ClusterRole",
    "rbac.authorization.k8s.io/v1/ClusterRoleBinding",
    "rbac.authorization.k8s.io/v1/Role",
    "rbac.authorization.k8s.io/v1/RoleBinding",
    "apiextensions.k8s.io/v1/CustomResourceDefinition",
    "admissionregistration.k8s.io/v1/ValidatingWebhookConfiguration",
}


def run(kubectl: str | None, *args: str, kubeconfig: Path | None = None) -> str:
    if kubectl is None:
        pytest.skip("no kubectl on PATH or in KUBEBUILDER_ASSETS")
    env = {**os.environ, "KUBECONFIG": str(kubeconfig)} if kubeconfig else dict(os.environ)
    done = subprocess.run([kubectl, *args], capture_output=True, text=True, env=env, check=False, timeout=60)
    assert done.returncode == 0, f"kubectl {' '.join(args)}: {done.stderr}"
    return done.stdout


def shipped() -> list[dict[str, Any]]:
    """Every object of config/default, read without kustomize: what it names, it holds verbatim."""
    objects: list[dict[str, Any]] = []
    pending = [CONFIG / "default"]
    while pending:
        folder = pending.pop()
        for name in yaml.safe_load((folder / "kustomization.yaml").read_text())["resources"]:
            path = folder / name
            if path.is_dir():
                pending.append(path.resolve())
            else:
                objects += [item for item in yaml.safe_load_all(path.read_text()) if item]
    return objects


def of_kind(kind: str) -> dict[str, dict[str, Any]]:
    return {item["metadata"]["name"]: item for item in shipped() if item["kind"] == kind}


def test_nothing_newer_than_1_20() -> None:
    """Every object is of a kind that Kubernetes 1.20 serves."""
    assert {f"{item['apiVersion']}/{item['kind']}" for item in shipped()} == OLD_ENOUGH


def test_samples_are_in_no_kustomization() -> None:
    """Two pairs of samples share a name, so none is applied with a folder."""
    for path in CONFIG.rglob("kustomization.yaml"):
        assert "samples" not in path.read_text()


def test_deployments_are_restricted_and_probed() -> None:
    """Both Deployments run as nobody, without privileges, with probes, requests and leader election."""
    deployments = of_kind("Deployment")
    assert set(deployments) == {"kaito-workspace", "kaito-machine"}

    for name, item in deployments.items():
        pod = item["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        security = container["securityContext"]
        assert pod["serviceAccountName"] == name
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert (security["allowPrivilegeEscalation"], security["readOnlyRootFilesystem"]) == (False, True)
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert {"livenessProbe", "readinessProbe", "resources"} <= set(container)
        assert "--leader-elect" in container["args"]
        assert f"--controllers={name.removeprefix('kaito-')}" in container["args"]


def test_arguments_exist() -> None:
    """Every flag that a Deployment passes is one of `kaito manager`."""
    import inspect

    from kaito.commands.manager import manager

    known = {f"--{name.replace('_', '-')}" for name in inspect.signature(manager).parameters}
    for item in of_kind("Deployment").values():
        command, *flags = item["spec"]["template"]["spec"]["containers"][0]["args"]
        assert command == "manager"
        assert {flag.split("=", 1)[0] for flag in flags} <= known


def test_the_azure_settings_are_complete() -> None:
    """What the ConfigMap names, filled in, is enough beside what the workload-identity webhook adds to the pod."""
    from provisioner.azure import AzureSettings

    template = of_kind("Deployment")["kaito-machine"]["spec"]["template"]
    (container,) = template["spec"]["containers"]
    assert "--provider=azure" in container["args"]
    (source,) = container["envFrom"]
    settings = of_kind("ConfigMap")[source["configMapRef"]["name"]]["data"]
    assert template["metadata"]["labels"]["azure.workload.identity/use"] == "true"
    assert (
        "azure.workload.identity/client-id"
        in of_kind("ServiceAccount")["kaito-machine"]["metadata"]["annotations"]
    )
    added = ("AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_FEDERATED_TOKEN_FILE")

    AzureSettings.from_env(dict.fromkeys((*settings, *added), "x"))


def test_selectors_meet() -> None:
    """The metrics Service selects the pods of both Deployments and names a port that they have."""
    service = of_kind("Service")["kaito-metrics"]["spec"]

    for item in of_kind("Deployment").values():
        template = item["spec"]["template"]
        assert service["selector"].items() <= template["metadata"]["labels"].items()
        assert item["spec"]["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
        ports = {port["name"] for port in template["spec"]["containers"][0]["ports"]}
        assert service["ports"][0]["targetPort"] in ports


def test_the_webhook_is_wired() -> None:
    """The Service that API servers call selects the pods that serve, by a port that they have; it fails closed."""
    (webhook,) = of_kind("ValidatingWebhookConfiguration")[CONFIGURATION]["webhooks"]
    called = webhook["clientConfig"]["service"]
    service = of_kind("Service")[called["name"]]
    template = of_kind("Deployment")["kaito-workspace"]["spec"]["template"]
    (container,) = template["spec"]["containers"]
    (port,) = service["spec"]["ports"]

    assert service["metadata"]["namespace"] == called["namespace"]
    assert service["spec"]["selector"].items() <= template["metadata"]["labels"].items()
    assert (port["port"], called["path"]) == (called["port"], "/validate/workspace.kaito.sh")
    assert {item["name"]: item["containerPort"] for item in container["ports"]}[port["targetPort"]] == 9443
    assert "--webhook-bind=0.0.0.0:9443" in container["args"]
    assert (webhook["failurePolicy"], webhook["sideEffects"]) == ("Fail", "None")
    assert "caBundle" not in webhook["clientConfig"]  # the operator's to write


def test_no_role_is_wide() -> None:
    """No rule has a wildcard, none reads Secrets, and only the Machine controller deletes nodes."""
    for name, item in of_kind("ClusterRole").items():
        for rule in item["rules"]:
            assert "*" not in (*rule["apiGroups"], *rule["resources"], *rule["verbs"])
            assert "secrets" not in rule["resources"]
            assert name == "kaito-machine" or not ("nodes" in rule["resources"] and "delete" in rule["verbs"])


@pytest.mark.parametrize(
    "folder", ["crd", "rbac", "manager", "webhook", "nodeclaim", "device-plugin", "default", "prometheus"]
)
def test_kustomize_builds(folder: str) -> None:
    """Every kustomization builds, and config/default holds each object once."""
    kubectl = os.environ.get("KUBEBUILDER_ASSETS", "") + "/kubectl"
    built = run(kubectl if Path(kubectl).exists() else _on_path(), "kustomize", str(CONFIG / folder))

    names = [(item["kind"], item["metadata"]["name"]) for item in yaml.safe_load_all(built)]
    assert names
    assert len(names) == len(set(names))
    if folder == "default":
        assert sorted(names) == sorted((item["kind"], item["metadata"]["name"]) for item in shipped())
        assert "image: kaito:0.1.0" in built


def _on_path() -> str | None:
    import shutil

    return shutil.which("kubectl")


# ------------------------------------------------------------------ on API servers


async def test_default_is_accepted_and_samples_are_admitted(api_server: Any) -> None:
    """`kubectl apply -k config/default` works, twice; then each sample is admitted in a namespace of its own."""
    kubectl, kubeconfig = api_server.kubectl, api_server.kubeconfig
    for _ in range(2):
        run(kubectl, "apply", "--validate=false", "-k", str(CONFIG / "default"), kubeconfig=kubeconfig)
    run(kubectl, "wait", "--for=condition=Established", "crd/workspaces.kaito.sh", kubeconfig=kubeconfig)
    # Nobody runs the operator here, and without its webhook no Workspace is admitted.
    run(kubectl, "delete", "validatingwebhookconfiguration", CONFIGURATION, kubeconfig=kubeconfig)

    for path in SAMPLES:
        space = f"sample-{path.name[0]}-{os.getpid()}"
        run(kubectl, "create", "namespace", space, kubeconfig=kubeconfig)
        run(kubectl, "apply", "-n", space, "-f", str(path), kubeconfig=kubeconfig)
        table = run(kubectl, "get", "workspace", "-n", space, kubeconfig=kubeconfig).splitlines()
        stored = json.loads(run(kubectl, "get", "wk", "-n", space, "-o", "json", kubeconfig=kubeconfig))["items"][
            0
        ]

        written = yaml.safe_load(path.read_text())
        assert table[0].split() == ["NAME", "INSTANCE", "RESOURCEREADY", "INFERENCEREADY", "WORKSPACEREADY", "AGE"]
        assert table[1].split()[:2] == [written["metadata"]["name"], "Standard_NC6s_v3"]
        for half in ("resource", "inference", "tuning"):
            assert stored.get(half) == written.get(half)  # nothing pruned, nothing defaulted
        run(kubectl, "delete", "namespace", space, "--wait=false", kubeconfig=kubeconfig)


ALLOWED = [
    ("workspace", "patch", "workspaces.kaito.sh", "default"),
    ("workspace", "patch", "workspaces.kaito.sh/status", "default"),
    ("workspace", "create", "machines.karpenter.sh", ""),
    ("workspace", "patch", "deployments.apps", "default"),
    ("workspace", "create", "services", "default"),
    ("workspace", "patch", "statefulsets.apps", "default"),
    ("workspace", "patch", "configmaps", "default"),
    ("workspace", "watch", "configmaps", "default"),
    ("workspace", "delete", "controllerrevisions.apps", "default"),
    ("workspace", "delete", "pods", "default"),
    ("workspace", "patch", "nodes", ""),
    ("workspace", "create", "events.events.k8s.io", "default"),
    ("workspace", "update", "leases.coordination.k8s.io", "kaito-system"),
    ("workspace", "create", "secrets", "kaito-system"),
    ("workspace", "get", "secrets/workspace-webhook-cert", "kaito-system"),
    ("workspace", "get", "configmaps", "default"),
    ("workspace", "watch", f"validatingwebhookconfigurations.admissionregistration.k8s.io/{CONFIGURATION}", ""),
    ("workspace", "patch", f"validatingwebhookconfigurations.admissionregistration.k8s.io/{CONFIGURATION}", ""),
    ("machine", "patch", "machines.karpenter.sh/status", ""),
    ("machine", "delete", "machines.karpenter.sh", ""),
    ("machine", "delete", "nodes", ""),
    ("machine", "delete", "pods", "default"),
    ("machine", "create", "pods/eviction", "default"),
    ("machine", "list", "nodeclaims.karpenter.sh", ""),
    ("machine", "patch", "nodeclaims.karpenter.sh/status", ""),
    ("machine", "create", "leases.coordination.k8s.io", "kaito-system"),
]
DENIED = [
    ("workspace", "get", "secrets", "default"),
    ("workspace", "get", "secrets", "kaito-system"),
    ("workspace", "create", "secrets", "default"),
    ("workspace", "patch", "validatingwebhookconfigurations.admissionregistration.k8s.io", ""),
    ("workspace", "delete", "nodes", ""),
    ("workspace", "create", "pods", "default"),
    ("workspace", "delete", "persistentvolumeclaims", "default"),
    ("workspace", "patch", "machines.karpenter.sh/status", ""),
    ("workspace", "update", "leases.coordination.k8s.io", "kube-system"),
    ("machine", "create", "machines.karpenter.sh", ""),
    ("machine", "create", "nodeclaims.karpenter.sh", ""),
    ("machine", "create", "nodes", ""),
    ("machine", "get", "secrets", "default"),
    ("machine", "patch", "deployments.apps", "default"),
    ("machine", "patch", "workspaces.kaito.sh", "default"),
]


async def test_service_accounts_may_do_their_work_and_no_more(plane: ControlPlane) -> None:
    """A real authorizer lets each service account do what its controller does, and nothing of the other's."""
    run(
        str(plane.bin / "kubectl"),
        "apply",
        "--validate=false",
        "-k",
        str(CONFIG / "default"),
        kubeconfig=plane.kubeconfig,
    )
    async with Client(plane.rest_config()) as client:
        answers = {case: await may(client, *case) for case in (*ALLOWED, *DENIED)}
        await client.delete(VALIDATING, CONFIGURATION)  # nobody serves it here

    assert answers == {**dict.fromkeys(ALLOWED, True), **dict.fromkeys(DENIED, False)}


async def may(client: Client, account: str, verb: str, what: str, namespace: str) -> bool:
    """Ask the API server what a service account of ours may do."""
    name, _, subresource = what.partition("/")
    plural, _, group = name.partition(".")
    if plural in ("secrets", "validatingwebhookconfigurations"):  # of these, one is told by its name
        one = {"verb": verb, "resource": plural, "group": group, "name": subresource}
        return await _allowed(client, account, one, namespace)
    attributes = {
        "verb": verb,
        "resource": plural,
        "group": group,
        "subresource": subresource,
    }
    return await _allowed(client, account, attributes, namespace)


async def _allowed(client: Client, account: str, attributes: dict[str, str], namespace: str) -> bool:
    attributes = {**attributes, "namespace": namespace}
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {"user": f"system:serviceaccount:kaito-system:kaito-{account}", "resourceAttributes": attributes},
    }
    answer = await client.request("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", body=review)
    return bool(answer["status"].get("allowed"))


async def test_a_current_server_accepts_the_crds(apiextensions: RestConfig) -> None:
    """A current apiextensions-apiserver establishes both CRDs and stores a sample under either version."""
    async with Client(apiextensions) as client:
        for path in sorted((CONFIG / "crd").glob("*.*.yaml")):
            await client.create(CRDS, yaml.safe_load(path.read_text()))
            conditions: dict[str, Obj] = {}
            async with asyncio.timeout(20):
                while conditions.get("Established", {}).get("status") != "True":
                    await asyncio.sleep(0.05)
                    status = (await client.get(CRDS, path.stem)).get("status") or {}
                    conditions = {item["type"]: item for item in status.get("conditions") or ()}
            assert "NonStructuralSchema" not in conditions
        for version in ("v1alpha1", "v1beta1"):
            obj = yaml.safe_load(SAMPLES[0].read_text())
            obj["apiVersion"], obj["metadata"]["name"] = f"kaito.sh/{version}", f"ws-{version}"
            where = f"/apis/kaito.sh/{version}/namespaces/default/workspaces"
            stored = await client.request("POST", where, query={"fieldValidation": "Strict"}, body=obj)
            assert stored["inference"] == obj["inference"]
