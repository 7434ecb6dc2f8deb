"""Asking a pod to leave through the eviction API, and what the API server answers.

In: a pod. Out: None when it leaves or has left, else what forbids it. A disruption budget's refusal is an answer
like any other here, and never an error. Servers before 1.22 know evictions of another version; which one is found
out once.
"""

from __future__ import annotations

import re

from controllers.machine.model import Blocked, EvictPod
from manager.client import Client
from manager.errors import ApiError, Conflict, NotFound
from manager.resources import PODS
from manager.types import Obj

_BUDGET = re.compile(r"[Tt]he disruption budget (\S+)")


class Evictions:
    """See the module. One per process."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._version = ""

    def __repr__(self) -> str:
        return f"<Evictions {self._version or 'not asked yet'}>"

    async def ask(self, pod: EvictPod) -> Blocked | None:
        """Ask one pod to leave.

        Raises:
            ConnectionFailed: the API server did not answer.
        """
        body: Obj = {
            "apiVersion": await self._api_version(),
            "kind": "Eviction",
            "metadata": {"name": pod.name, "namespace": pod.namespace},
            "deleteOptions": {"preconditions": {"uid": pod.uid}},
        }
        try:
            await self._client.create(PODS, body, namespace=pod.namespace, name=pod.name, subresource="eviction")
        except (NotFound, Conflict):
            return None  # it has left, or a namesake with another uid stands in its place
        except ApiError as error:
            return _blocked(f"{pod.namespace}/{pod.name}", error)
        return None

    async def _api_version(self) -> str:
        if not self._version:
            served: list[Obj] = (await self._client.request("GET", "/api/v1")).get("resources") or []
            entry: Obj = next((item for item in served if item.get("name") == "pods/eviction"), {})
            self._version = f"{entry.get('group') or 'policy'}/{entry.get('version') or 'v1'}"
        return self._version


def _blocked(pod: str, error: ApiError) -> Blocked:
    causes = (error.details or {}).get("causes") or []
    message = next((str(cause.get("message")) for cause in causes if cause.get("message")), error.message)
    budget = _BUDGET.search(message)
    return Blocked(pod, budget[1] if budget else "", message)
