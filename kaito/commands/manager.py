"""``kaito manager``: the operator. One program; flags choose which of its controllers run.

In: a kubeconfig (or the pod's own credentials), the names of controllers, a cloud. Out: a process that runs
until SIGTERM, and ends with an error when its lease is lost. Here, and only here, concrete classes are put
together; the controllers know the cloud by its protocol alone. Missing CRDs are waited for or done without,
because an operator may well be started before them.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    import asyncio

    from api.validation import Switches
    from manager.config import RestConfig
    from manager.types import Resource

_CONTROLLERS = ("workspace", "machine")
_CRD_POLL = 2.0  # seconds between two looks for a CRD that is not there yet


def manager(
    controllers: Annotated[
        str, typer.Option(help="Controllers to run: workspace, machine.")
    ] = "workspace,machine",
    kubeconfig: Annotated[Path | None, typer.Option(help="Default: KUBECONFIG, then the pod's own.")] = None,
    provider: Annotated[
        str, typer.Option(help="Cloud of the machine controller: local, azure (set by ARM_*, AZURE_*), byo.")
    ] = "local",
    local_cloud_url: Annotated[str, typer.Option(help="Address of the local cloud.")] = "http://127.0.0.1:8089",
    local_cloud_token_file: Annotated[
        Path | None, typer.Option(help="File with the local cloud's bearer token.")
    ] = None,
    preset_registry: Annotated[
        str, typer.Option(envvar="PRESET_REGISTRY_NAME", help="Registry of the presets' images.")
    ] = "mcr.microsoft.com/aks/kaito",
    leader_elect: Annotated[bool, typer.Option(help="Work only while holding the lease.")] = False,
    namespace: Annotated[
        str, typer.Option(envvar="SYSTEM_NAMESPACE", help="Namespace of the lease. [default: the context's]")
    ] = "",
    metrics_bind: Annotated[str, typer.Option(help="host:port of /metrics; 0 turns it off.")] = "0.0.0.0:8080",
    metrics_secure: Annotated[
        bool,
        typer.Option(
            help="Serve metrics over TLS, to those whom the API server allows to get /metrics "
            "(needs the ClusterRole system:auth-delegator)."
        ),
    ] = False,
    metrics_cert_dir: Annotated[
        Path | None,
        typer.Option(help="Folder of tls.crt and tls.key for --metrics-secure. [default: self-signed]"),
    ] = None,
    health_bind: Annotated[str, typer.Option(help="host:port of the probes; 0 turns it off.")] = "0.0.0.0:8081",
    webhook_bind: Annotated[
        str, typer.Option(help="host:port of the admission webhook, over TLS; 0 turns it off.")
    ] = "0",
    webhook_service: Annotated[
        str, typer.Option(envvar="WEBHOOK_SERVICE", help="Service by which API servers call the webhook.")
    ] = "kaito-webhook",
    webhook_cert_dir: Annotated[
        Path | None,
        typer.Option(help="Folder with tls.crt and tls.key. [default: certificates of its own, kept in a Secret]"),
    ] = None,
    admission_rules: Annotated[
        str, typer.Option(help="What is admitted: an era (v0.3, v0.12), and NAME=VALUE of docs/admission.md.")
    ] = "",
    allow_private_dataset_urls: Annotated[
        bool,
        typer.Option(
            "--allow-private-dataset-urls",
            help="Admit datasets at private addresses, and let tuning pods fetch them: this machine, the "
            "cluster's network, the cloud's metadata service. The same as --admission-rules=private-urls=true.",
        ),
    ] = False,
    upgrade_workloads: Annotated[
        bool,
        typer.Option(
            help="Roll out what this release renders differently, one Workspace at a time. Else running pods "
            'stay until their Workspace is edited or annotated kaito.sh/upgrade: "true".'
        ),
    ] = False,
    debug_bind: Annotated[
        str, typer.Option(help="Loopback host:port of /debug (tasks, memory, profile); 0 turns it off.")
    ] = "0",
    node_api: Annotated[
        str,
        typer.Option(
            help="What the workspace controller creates for a missing node: machine (karpenter.sh/v1alpha5, which "
            "the machine controller serves), or nodeclaim (karpenter.sh/v1, for a cluster with Karpenter)."
        ),
    ] = "machine",
    gpu_deadline: Annotated[
        float, typer.Option(min=1, help="Seconds a Ready node may take to show its GPUs before that is a fault.")
    ] = 300.0,
    node_grace: Annotated[
        float,
        typer.Option(min=0, help="Seconds a matching node that is not Ready is waited for before one is made."),
    ] = 300.0,
    registration_timeout: Annotated[
        float, typer.Option(min=1, help="Seconds a launched machine may take to become a node.")
    ] = 900.0,
    initialization_timeout: Annotated[
        float, typer.Option(min=1, help="Seconds a node may take to show its GPUs; then it is replaced.")
    ] = 900.0,
    drain_timeout: Annotated[
        float, typer.Option(min=0, help="Seconds pods may take to leave a node whose machine is deleted.")
    ] = 900.0,
    delete_foreign_instances: Annotated[
        bool,
        typer.Option(help="Remove unclaimed instances that the upstream provisioner made; else they are told of."),
    ] = False,
    leak_audit_interval: Annotated[
        float, typer.Option(min=1, help="Seconds between two comparisons of the cloud with the Machines.")
    ] = 300.0,
    prices: Annotated[Path | None, typer.Option(help="File with prices of your own, for the leak audit.")] = None,
    region: Annotated[str, typer.Option(envvar="LOCATION", help="Whose prices count.")] = "",
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
) -> None:
    """Run the operator until SIGTERM or Ctrl-C."""
    import asyncio
    import logging
    from dataclasses import replace

    from controllers import (
        Limits,
        MachineSettings,
        SweepLimits,
        WorkspaceSettings,
        add_machine_controller,
        add_workspace_controller,
    )
    from controllers.leaks import add_leak_audit
    from kaito.clouds import make_provider, rates
    from kaito.errors import CliError
    from kaito.webhooks import serve_webhooks
    from manager.errors import ConfigError, ManagerError
    from manager.health import ping
    from manager.kubeconfig import load_config
    from manager.leader import LeaderElection
    from manager.manager import Manager, SecureMetrics

    chosen = _chosen(controllers)
    level = logging.getLevelNamesMapping().get(log_level.upper())
    if level is None:
        raise CliError(f"--log-level {log_level}: not a level", "use debug, info, warning or error", exit_code=2)
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    switches, wanted = _switches(admission_rules), _node_api(node_api)
    if allow_private_dataset_urls:
        switches = replace(switches, private_urls=True)
    # The SDK tells of every request and reply, headers and all.
    logging.getLogger("azure").setLevel(max(level, logging.WARNING))
    cloud = None
    if "machine" in chosen:
        cloud = make_provider(provider, url=local_cloud_url, token_file=local_cloud_token_file)

    async def run() -> None:
        config = await load_config(kubeconfig)
        # One lease per set of controllers: the shipped Deployments run one controller each, side by side.
        lease = f"kaito-{'-'.join(sorted(chosen))}-controller"
        election = LeaderElection(lease, namespace or config.namespace) if leader_elect else None
        try:
            mgr = Manager(
                config,
                leader_election=election,
                metrics_bind=metrics_bind,
                metrics_secure=SecureMetrics(metrics_cert_dir) if metrics_secure else None,
                health_bind=health_bind,
                debug_bind=debug_bind,
                name="kaito",
            )
        except ConfigError as error:
            raise CliError(str(error), "see `kaito manager --help`", exit_code=2) from error
        mgr.add_healthz("ping", ping)
        stop = _stop_on_signals()
        if "workspace" in chosen:
            served = await _await_crds(config, stop)
            settings = WorkspaceSettings(
                registry=preset_registry,
                node_api=node_api,
                machine_api=wanted in served,
                switches=switches,
                upgrade_workloads=upgrade_workloads,
                gpu_deadline=gpu_deadline,
                node_grace=node_grace,
            )
            add_workspace_controller(mgr, settings)
        if webhook_bind != "0":
            serve_webhooks(
                mgr,
                webhook_bind,
                service=webhook_service,
                namespace=namespace or config.namespace,
                switches=switches,
                cert_dir=webhook_cert_dir,
            )
        if cloud is not None:
            limits = Limits(
                registration=registration_timeout, initialization=initialization_timeout, drain=drain_timeout
            )
            sweep = SweepLimits(foreign=delete_foreign_instances)
            add_machine_controller(mgr, cloud, MachineSettings(limits=limits, sweep=sweep))
            add_leak_audit(mgr, cloud, rates(prices, region or None), interval=leak_audit_interval)
        try:
            if not stop.is_set():
                await mgr.run(stop)
        finally:
            if cloud is not None:
                await cloud.close()

    try:
        asyncio.run(run())
    except ConfigError as error:
        raise CliError(str(error), "name a cluster with --kubeconfig, or start one with `kaito up`") from error
    except ManagerError as error:
        raise CliError(f"the operator stopped: {error}") from error


def _chosen(text: str) -> tuple[str, ...]:
    from kaito.errors import CliError

    chosen = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    unknown = [part for part in chosen if part not in _CONTROLLERS]
    if unknown or not chosen:
        what = ", ".join(unknown) or "nothing chosen"
        raise CliError(
            f"--controllers: {what}", f"choose of {', '.join(_CONTROLLERS)}, separated by commas", exit_code=2
        )
    return chosen


def _switches(text: str) -> Switches:
    from api.validation import Switches, UnknownSwitch
    from kaito.errors import CliError

    try:
        return Switches.parse(text)
    except UnknownSwitch as error:
        raise CliError(f"--admission-rules: {error.message}", error.next_step, exit_code=2) from error


def _node_api(name: str) -> Resource:
    from controllers.workspace.nodeapi import NODE_APIS
    from kaito.errors import CliError

    if name not in NODE_APIS:
        raise CliError(f"--node-api={name}: unknown", f"choose of {', '.join(NODE_APIS)}", exit_code=2)
    return NODE_APIS[name].resource


def _stop_on_signals() -> asyncio.Event:
    import asyncio
    import signal

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    return stop


async def _await_crds(config: RestConfig, stop: asyncio.Event) -> tuple[Resource, ...]:
    """Wait until Workspaces are served; tell which of Machines and NodeClaims are.

    The API server, too, may come up after the operator: a connection that fails is one more thing to wait for.
    """
    import asyncio
    import logging

    from controllers.resources import MACHINES, NODECLAIMS, WORKSPACES
    from manager.client import Client
    from manager.errors import ConnectionFailed, ServerError

    log = logging.getLogger("kaito.commands.manager")
    said = ""
    async with Client(config, user_agent="kaito") as client:
        while not stop.is_set():
            problem = "install the CRDs (kubectl apply -k config/crd)"
            try:
                if await client.discover(WORKSPACES.group, WORKSPACES.kind, WORKSPACES.version) is not None:
                    kinds = (MACHINES, NODECLAIMS)
                    found = [await client.discover(kind.group, kind.kind, kind.version) for kind in kinds]
                    return tuple(kind for kind, answer in zip(kinds, found, strict=True) if answer is not None)
            except (ConnectionFailed, ServerError) as error:
                problem = str(error)
            if problem != said:
                log.warning("waiting until the cluster serves workspaces.kaito.sh: %s", problem)
                said = problem
            try:
                await asyncio.wait_for(stop.wait(), _CRD_POLL)
            except TimeoutError:
                continue
    return ()
