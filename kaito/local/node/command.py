"""`kaito node` behind its options: reads files, installs signal handlers, turns failures into words for a
terminal.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import resource
import signal
from collections.abc import Sequence
from pathlib import Path

from kaito.errors import CliError
from kaito.local.node.agent import Agent, AgentError, Options
from kaito.local.node.images import ImageTableError, parse_weights
from manager.errors import ConfigError
from manager.kubeconfig import load_config

_UNITS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def seconds(text: str) -> float:
    """`2`, `2s`, `500ms`, `1m` as seconds. Raises `CliError`."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h)?", text.strip())
    if found is None:
        raise CliError(f"not a duration: {text!r}", "write 2s, 500ms or 1m", exit_code=2)
    return float(found[1]) * _UNITS[found[2] or ""]


def take_descriptors() -> None:
    """As many open files as the user may have: a pod takes three here, and many shells allow 1024 in all."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def run_node(
    kubeconfig: Path | None,
    token_file: Path,
    *,
    state: Path,
    kubelet_port: int,
    instances: tuple[str, str],
    node_delay: float,
    weights: Sequence[str],
    images: Path | None,
    client_ca: Path | None,
    anonymous: bool,
    shutdown_grace: float,
    orphan_seconds: float,
    keep: bool,
) -> None:
    """Run the agent until SIGTERM or SIGINT. Raises `CliError`."""
    logging.basicConfig(
        level=os.environ.get("KAITO_LOG", "INFO").upper(), format="%(asctime)s %(levelname)s %(name)s %(message)s"
    )
    take_descriptors()
    host, port = instances
    if not port.isdigit():
        raise CliError(f"--instances-listen {host}:{port}: write HOST:PORT", exit_code=2)
    try:
        config = await load_config(kubeconfig)
        options = Options(
            state=state.expanduser().absolute(),
            token=_token(token_file),
            kubelet_port=kubelet_port,
            instances_host=host,
            instances_port=int(port),
            node_delay=node_delay,
            weights=parse_weights(weights),
            images=images,
            client_ca=client_ca,
            anonymous=anonymous,
            shutdown_grace=shutdown_grace,
            orphan_seconds=orphan_seconds,
            keep=keep,
        )
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        await Agent(config, options).run(stop)
    except AgentError as err:
        raise CliError(err.message, err.next_step) from err
    except (ImageTableError, ConfigError) as err:
        raise CliError(str(err)) from err


def _token(file: Path) -> str:
    try:
        token = file.read_text().strip()
    except OSError as err:
        raise CliError(f"cannot read the token file {file}: {err.strerror}") from err
    if not token:
        raise CliError(f"the token file {file} is empty")
    return token
