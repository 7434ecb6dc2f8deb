"""The checks of the cluster: its API server, our CRDs, rights and webhook, and GPUs.

In: an open client. Out: checks. Each asks the API server only, reads nothing secret and leaves nothing behind:
what must be tried is tried as a dry run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

import aiohttp

from api import catalog, keys
from api.crds import crds
from api.webhook import CONFIGURATION
from controllers.nodes import offers
from kaito.doctor.model import Check, Finding, bad, doubtful, good, skipped
from kaito.doctor.needs import NAMESPACE, Need, needs
from kaito.doctor.schemas import lacking
from kaito.kube import WORKSPACES
from manager.certs.injection import VALIDATING, bundles
from manager.certs.pems import certificates
from manager.client import Client
from manager.config import RestConfig
from manager.errors import ApiError, Forbidden, NotFound
from manager.resources import CRDS, DAEMONSETS, NODES, SERVICEACCOUNTS
from manager.tls import LiveTls
from manager.types import Obj

OLDEST = (1, 20)
_SKEW_WARN, _SKEW_FAIL = 5.0, 60.0  # seconds; leases and tokens break somewhere in between
_SOON = timedelta(days=7)
_AT_ONCE = 8
_INSTALL = "install KAITO: kubectl apply -k config/default"
_REFUSED = "doctor-asks-for-a-preset-that-nobody-has"


class ClusterChecks:
    """The checks of one cluster."""

    def __init__(self, client: Client, config: RestConfig, clock: Callable[[], datetime]) -> None:
        self._client = client
        self._config = config
        self._clock = clock

    def all(self) -> list[Check]:
        """Every check, in the order to read them."""
        return [
            Check("API server", self.api_server),
            Check("clock of the API server", self.api_clock),
            Check("CRDs", self.definitions),
            Check("rights of kaito-workspace", lambda: self.rights("kaito-workspace")),
            Check("rights of kaito-machine", lambda: self.rights("kaito-machine")),
            Check("webhook", self.webhook),
            Check("webhook's certificate", self.webhook_certificate),
            Check("GPUs of nodes", self.gpus),
        ]

    async def api_server(self) -> Finding:
        """It answers, and is not too old."""
        found = await self._client.request("GET", "/version")
        text = str(found.get("gitVersion") or "?")
        digits = ["".join(c for c in str(found.get(key) or "") if c.isdigit()) for key in ("major", "minor")]
        if all(digits) and tuple(int(part) for part in digits) < OLDEST:
            return bad(f"Kubernetes {text} is too old", f"upgrade to {OLDEST[0]}.{OLDEST[1]} or later")
        return good(f"Kubernetes {text} answers")

    async def api_clock(self) -> Finding:
        """Its clock and ours agree."""
        context = LiveTls(self._config).context if self._config.server.startswith("https:") else False
        url = f"{self._config.server.rstrip('/')}/version"  # any status has a date
        async with (
            aiohttp.ClientSession(trust_env=False) as session,
            session.get(url, ssl=context, proxy=self._config.proxy) as reply,
        ):
            there = reply.headers.get("Date", "")
        return skew(there, self._clock(), "the API server")

    async def definitions(self) -> Finding:
        """Our CRDs are there, established, and of this release."""
        problems = []
        for wanted in crds():
            name = wanted["metadata"]["name"]
            try:
                there = await self._client.get(CRDS, name)
            except NotFound:
                problems.append(f"{name} is missing")
                continue
            if not _condition(there, "Established"):
                problems.append(f"{name} is not established")
            elif old := lacking(wanted, there):
                more = f" and {len(old) - 1} more" if len(old) > 1 else ""
                problems.append(f"{name} is older than this release (lacks {old[0]}{more})")
        if problems:
            return bad("; ".join(problems), "kubectl apply --server-side -k config/crd")
        return good("workspaces.kaito.sh and machines.karpenter.sh are those of this release")

    async def rights(self, account: str) -> Finding:
        """The service account may do all that its controller does."""
        wanted = [need for need in needs() if need.account == account]
        try:
            await self._client.get(SERVICEACCOUNTS, account, NAMESPACE)
            whom = f"system:serviceaccount:{NAMESPACE}:{account}"
        except NotFound:
            whom = ""  # the operator runs as somebody else, such as `kaito up` does: then as us
        gate = asyncio.Semaphore(_AT_ONCE)

        async def ask(need: Need) -> bool:
            async with gate:
                return await self._may(need, whom)

        try:
            answers = await asyncio.gather(*(ask(need) for need in wanted))
        except Forbidden as error:
            return doubtful(f"you may not ask: {error.message}", "ask as somebody who may create access reviews")
        refused = [str(need) for need, allowed in zip(wanted, answers, strict=True) if not allowed]
        who = account if whom else f"no service account {account} here, and you"
        if refused:
            more = f" and {len(refused) - 3} more" if len(refused) > 3 else ""
            return bad(f"{who} may not {', '.join(refused[:3])}{more}", "kubectl apply -k config/rbac")
        text = f"all {len(wanted)} things that it needs are allowed"
        return good(
            text if whom else f"there is no service account {account}; you may do all {len(wanted)} things"
        )

    async def webhook(self) -> Finding:
        """The API server asks it, and it answers: shown by a Workspace that only it refuses, as a dry run."""
        try:
            configuration = await self._client.get(VALIDATING, CONFIGURATION)
        except NotFound:
            return doubtful("the cluster does not ask it: mistakes are found after admission", _INSTALL)
        policy = configuration["webhooks"][0].get("failurePolicy")
        body: Obj = {
            "metadata": {"generateName": "kaito-doctor-", "namespace": "default"},
            "resource": {
                "instanceType": "Standard_NC24ads_A100_v4",
                "labelSelector": {"matchLabels": {"kaito-doctor": "dry-run"}},
            },
            "inference": {"preset": {"name": _REFUSED}},
        }
        try:
            await self._client.create(WORKSPACES, body, dry_run=True)
        except NotFound:
            return skipped("the cluster serves no Workspaces")
        except ApiError as error:
            if _REFUSED in error.message:
                return good("a Workspace that is wrong is refused by it")
            return bad(
                f"no Workspace can be made: {error.message}",
                "is the operator running? kubectl -n kaito-system get pods; kubectl -n kaito-system logs "
                "deployment/kaito-workspace",
            )
        return bad(
            f"it is not asked, and Workspaces pass unseen (failurePolicy {policy})",
            "is the operator running, and its Service's address the right one?",
        )

    async def webhook_certificate(self) -> Finding:
        """The authority that the API server trusts for it is there, and lasts."""
        try:
            configuration = await self._client.get(VALIDATING, CONFIGURATION)
        except NotFound:
            return skipped("there is no webhook")
        found = [certificate for pem in bundles(configuration).values() for certificate in certificates(pem)]
        now = self._clock()
        good_until = max((item.not_after for item in found if item.valid(now)), default=None)
        if good_until is None:
            what = "has expired" if found else "is missing: the operator has not written it yet"
            return bad(
                f"the authority in its configuration {what}", "restart the operator: it renews it at its start"
            )
        if good_until - now < _SOON:
            return doubtful(
                f"its authority ends at {good_until:%Y-%m-%d %H:%M} UTC",
                "the operator renews it in time; is it running?",
            )
        return good(f"its authority is valid until {good_until:%Y-%m-%d}")

    async def gpus(self) -> Finding:
        """Nodes that have GPUs offer them: a device plugin runs there."""
        nodes = [node for node in (await self._client.list(NODES)).items if _has_gpus(node)]
        blind = [node["metadata"]["name"] for node in nodes if not offers(node, keys.GPU_RESOURCE)]
        plugin = any(
            "nvidia-device-plugin" in item["metadata"]["name"]
            for item in (await self._client.list(DAEMONSETS)).items
        )
        fix = "kubectl apply -k config/device-plugin, or install NVIDIA's GPU operator"
        if blind:
            which = ", ".join(blind[:3]) + (f" and {len(blind) - 3} more" if len(blind) > 3 else "")
            return bad(f"{which}: a GPU node that offers no {keys.GPU_RESOURCE}", fix)
        if nodes:
            return good(f"{len(nodes)} GPU node{'s' if len(nodes) > 1 else ''}, all offer {keys.GPU_RESOURCE}")
        if plugin:
            return good("there is no GPU node yet, and the device plugin waits for one")
        return doubtful("there is no GPU node, and no device plugin for the first one", fix)

    async def _may(self, need: Need, whom: str) -> bool:
        spec: Obj = {"resourceAttributes": need.attributes()}
        kind = "SelfSubjectAccessReview"
        if whom:
            kind = "SubjectAccessReview"
            spec["user"] = whom
            spec["groups"] = [
                "system:serviceaccounts",
                f"system:serviceaccounts:{NAMESPACE}",
                "system:authenticated",
            ]
        body = {"apiVersion": "authorization.k8s.io/v1", "kind": kind, "spec": spec}
        answer = await self._client.request("POST", f"/apis/authorization.k8s.io/v1/{kind.lower()}s", body=body)
        return bool((answer.get("status") or {}).get("allowed"))


def skew(date: str, here: datetime, whose: str) -> Finding:
    """What a ``Date`` header says about two clocks. It counts whole seconds, and the reply took some time too."""
    try:
        there = parsedate_to_datetime(date)
    except ValueError:
        return doubtful(f"{whose} tells no time", "compare the clocks by hand")
    seconds = (here.astimezone(UTC) - there).total_seconds()
    text = f"{abs(seconds):.0f} s {'behind' if seconds > 0 else 'ahead of'} ours"
    if abs(seconds) > _SKEW_FAIL:
        return bad(f"{whose} is {text}", "set both clocks by NTP: tokens and leases go wrong")
    if abs(seconds) > _SKEW_WARN:
        return doubtful(f"{whose} is {text}", "set both clocks by NTP")
    return good(f"{whose} and this machine agree within {_SKEW_WARN:.0f} s")


def _has_gpus(node: Obj) -> bool:
    labels = node["metadata"].get("labels") or {}
    sku = catalog.sku(str(labels.get(keys.INSTANCE_TYPE_LABEL) or ""))
    marked = labels.get(keys.ACCELERATOR_LABEL) == keys.ACCELERATOR_NVIDIA or keys.GPU_PRODUCT_LABEL in labels
    return marked or (sku is not None and sku.gpus > 0 and sku.nvidia)


def _condition(obj: Obj, kind: str) -> bool:
    conditions = (obj.get("status") or {}).get("conditions") or []
    return any(item.get("type") == kind and item.get("status") == "True" for item in conditions)
