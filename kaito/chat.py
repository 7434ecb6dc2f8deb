"""Asking a Workspace: find the address of its Service that answers from here, POST /chat, return the answer.

The address is ``http://<ClusterIP>``, as the seed's curl uses it. Where the local cluster could not listen on
port 80 it wrote the address that works into an annotation of the Service, which is preferred.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kaito.errors import CliError
from kaito.kube import WORKSPACES, connect, translated
from manager.client import Client
from manager.errors import NotFound
from manager.resources import SERVICES
from manager.types import Obj

ADDRESS_ANNOTATION = "local.kaito.sh/address"
_TIMEOUT = 120.0  # seconds for one answer


async def ask_workspace(
    workspace: str, prompt: str, kubeconfig: Path | None, namespace: str | None, *, max_tokens: int | None
) -> str:
    """The answer to one prompt, without the prompt itself.

    Raises:
        CliError: there is no such Workspace's Service, or it did not answer.
    """
    if not prompt.strip():
        raise CliError("the prompt is empty", 'kaito chat WORKSPACE "What is KAITO?"', exit_code=2)
    async with connect(kubeconfig) as (client, default):
        url = await service_url(client, workspace, namespace or default)
    body: dict[str, Any] = {"prompt": prompt, "return_full_text": False}
    if max_tokens is not None:
        body["generate_kwargs"] = {"max_new_tokens": max_tokens}
    reply = await post_chat(url, body)
    return str(reply["Result"]).strip()


async def service_url(client: Client, name: str, namespace: str) -> str:
    """The base URL of a Workspace's Service that answers from this machine.

    Raises:
        CliError: there is no such Workspace, or it has no Service yet.
    """
    try:
        service = await client.get(SERVICES, name, namespace)
    except NotFound as error:
        with translated():
            await client.get(WORKSPACES, name, namespace)  # a Workspace that is not there is the better answer
        raise CliError(
            f"the Workspace '{name}' has no Service in namespace {namespace} yet",
            f"kaito get workspace {name} -n {namespace} -o wide shows what it waits for",
        ) from error
    return url_of(service)


def url_of(service: Obj) -> str:
    """The base URL of a Service object; pure.

    Raises:
        CliError: the Service has no address of its own.
    """
    address = (service["metadata"].get("annotations") or {}).get(ADDRESS_ANNOTATION)
    if address:
        return f"http://{str(address).split(',')[0].strip()}"
    ip = (service.get("spec") or {}).get("clusterIP")
    if not ip or ip == "None":
        raise CliError(
            f"the Service '{service['metadata']['name']}' has no ClusterIP",
            "ask a pod of it instead: kubectl port-forward, then curl",
        )
    return f"http://[{ip}]" if ":" in ip else f"http://{ip}"


async def post_chat(base_url: str, body: Obj) -> Obj:
    """POST one body to /chat; the reply has a ``Result``.

    Raises:
        CliError: the address does not answer, or answers with an error.
    """
    import aiohttp

    timeout = aiohttp.ClientTimeout(total=_TIMEOUT, connect=10)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.post(f"{base_url}/chat", json=body) as response,
        ):
            reply = await response.json(content_type=None)
            if response.status != 200:
                detail = reply.get("detail", reply) if isinstance(reply, dict) else reply
                raise CliError(f"{base_url}/chat answered {response.status}: {detail}")
            if not isinstance(reply, dict) or "Result" not in reply:
                raise CliError(f"{base_url}/chat gave no Result: {reply}", "is this a KAITO Workspace's Service?")
            return reply
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        raise CliError(
            f"{base_url}/chat did not answer: {str(error) or type(error).__name__}",
            "kaito get workspace -o wide shows whether it is ready; kaito logs WORKSPACE shows why not",
        ) from error
