"""The command's work: put the checks together, run them at once, print what they say.

In: what was asked for. Out: text and the exit code. Without a cluster to ask, that is the one finding; the checks
of the cloud are made all the same.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from controllers.settings import utc_now
from kaito.clouds import LOCAL_URL, azure_settings, make_provider
from kaito.console import Step, out, step
from kaito.doctor.azure import AzureChecks
from kaito.doctor.cluster import ClusterChecks
from kaito.doctor.model import Check, Finding, bad, exit_code, good, run_checks
from kaito.doctor.render import render, to_obj
from kaito.errors import CliError
from manager.client import Client
from manager.errors import ConfigError
from provisioner.azure import AzureAccount
from provisioner.errors import CloudError

_QUIET = 2.0  # seconds before progress is worth a line


@dataclass(frozen=True, slots=True)
class Request:
    """What the command was asked for. An empty provider: azure where the environment names a subscription."""

    kubeconfig: Path | None = None
    provider: str = ""
    skus: tuple[str, ...] = ()
    output: str = "table"
    timeout: float = 10.0
    local_url: str = LOCAL_URL
    local_token: Path | None = None


async def run(request: Request) -> int:
    """Check everything. Returns the exit code: 1 where something fails.

    Raises:
        CliError: an option cannot be used (exit code 2).
    """
    async with AsyncExitStack() as stack:
        checks = [*await _cluster(stack, request), *await _cloud(stack, request)]
        with step(f"{len(checks)} checks") as line:
            results = await run_checks(
                checks, seconds=request.timeout, on_done=lambda done, left: _tell(line, done, len(checks), left)
            )
    out(json.dumps(to_obj(results), indent=2, ensure_ascii=False) if request.output == "json" else render(results))
    return exit_code(results)


def _tell(line: Step, done: int, total: int, waiting: Iterable[str]) -> None:
    names = list(waiting)
    if names and line.elapsed > _QUIET:
        line.detail = f"{done} of {total}, waiting for {names[0]}"


async def _cluster(stack: AsyncExitStack, request: Request) -> list[Check]:
    from manager.kubeconfig import load_config

    try:
        config = await load_config(request.kubeconfig)
    except ConfigError as error:
        return [_told("API server", bad(" ".join(str(error).split()), "name a cluster with --kubeconfig"))]
    client = await stack.enter_async_context(Client(config, field_manager="kaito-doctor"))
    return ClusterChecks(client, config, utc_now).all()


async def _cloud(stack: AsyncExitStack, request: Request) -> list[Check]:
    provider = request.provider or ("azure" if os.environ.get("ARM_SUBSCRIPTION_ID") else "")
    if provider == "azure":
        return await _azure(stack, request)
    if request.skus:
        raise CliError("--sku needs --provider=azure", "and ARM_SUBSCRIPTION_ID and the like", exit_code=2)
    if provider == "local":
        return [Check("local cloud", lambda: _local(request))]
    if provider in ("", "byo"):
        return []
    raise CliError(f"--provider={provider}: unknown cloud", "choose of azure, local, byo", exit_code=2)


async def _azure(stack: AsyncExitStack, request: Request) -> list[Check]:
    try:
        settings = azure_settings(terminal=True)
    except CliError as error:
        return [_told("Azure: settings", bad(error.message, error.next_step))]
    try:
        account = await stack.enter_async_context(AzureAccount(settings))
    except CloudError as error:
        return [_told("Azure: credentials", bad(error.message, error.next_step))]
    return AzureChecks(settings, account, skus=request.skus, clock=utc_now).all()


async def _local(request: Request) -> Finding:
    provider = make_provider("local", url=request.local_url, token_file=request.local_token)
    try:
        count = len(await provider.list())
        return good(f"it answers, with {count} instance{'' if count == 1 else 's'}")
    except CloudError as error:
        return bad(f"{error.reason}: {error.message}", error.next_step)
    finally:
        await provider.close()


def _told(name: str, finding: Finding) -> Check:
    async def tell() -> Finding:
        return finding

    return Check(name, tell)
