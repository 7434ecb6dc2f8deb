"""`kaito fake-azure` behind its options: the stand-in as a process of its own, until SIGTERM.

In: a folder for state and certificates, ports, the node agent's address, a file of faults. Out: a Resource
Manager and an identity service over TLS, and machines that the node agent plays. The settings that point an
operator at it are written into the folder, so that a shell can use the same subscription.
"""

from __future__ import annotations

import asyncio
import logging
import shlex
import signal
from dataclasses import dataclass
from pathlib import Path

from kaito.errors import CliError
from kaito.local.azure_env import FEDERATED, environment
from kaito.local.fakearm.faults import InvalidRules, Rules
from kaito.local.fakearm.machines import LocalMachines
from kaito.local.fakearm.server import FakeArm
from kaito.local.pki import Authority, write_private

_DELETE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Options:
    """How to run it. ``state`` is its folder; ``create_seconds`` holds where the rules say nothing else."""

    state: Path
    port: int
    plain_port: int
    instances_url: str
    token_file: Path
    create_seconds: float = 2.0
    faults: Path | None = None


def load_rules(path: Path | None, create_seconds: float) -> Rules:
    """The rules of a file, with operations that end by themselves.

    Raises:
        CliError: the file cannot be used (exit code 2).
    """
    try:
        rules = Rules.load(path) if path else Rules()
    except InvalidRules as error:
        raise CliError(
            f"--faults {' '.join(str(error).split())}", "`kaito fake-azure --help` has an example", exit_code=2
        ) from error
    if rules.create_seconds is None:
        rules.create_seconds = create_seconds
    if rules.delete_seconds is None:
        rules.delete_seconds = _DELETE_SECONDS
    if rules.retry_after == 0:
        rules.retry_after = 1
    return rules


async def run_fake_azure(options: Options) -> None:
    """Serve until SIGTERM or SIGINT. Raises ``CliError``."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    rules = load_rules(options.faults, options.create_seconds)
    settings = environment(options.state, options.port)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        pair = Authority(options.state / "pki").server("arm", ["127.0.0.1"])
        write_private(options.state / FEDERATED, b"stand-in")
        lines = "".join(f"export {key}={shlex.quote(value)}\n" for key, value in settings.items())
        write_private(options.state / "azure.env", lines.encode())
        async with (
            LocalMachines(options.instances_url, options.token_file) as machines,
            FakeArm(
                pair.certificate,
                pair.key,
                rules=rules,
                on_node=machines.on_node,
                port=options.port,
                plain_port=options.plain_port,
                state=options.state / "state.json",
            ),
        ):
            await stop.wait()
    except OSError as error:
        raise CliError(
            f"the stand-in of Azure cannot start: {error}", "choose another --port or --state-dir"
        ) from error
