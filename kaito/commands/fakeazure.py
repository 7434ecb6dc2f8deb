"""``kaito fake-azure``: a stand-in for Azure, for `kaito up --cloud fake-azure`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

EXAMPLES = """A file of faults

  max_operations: 1                  # AKS runs one at a time, and answers 409 to the others

  usages: {standardNCADSA100v4Family: {used: 90, limit: 96}}

  faults:

  - {verb: create-operation, sku: Standard_NC6s_v3, answer: allocation, times: 2}

  - {verb: put, answer: quota, times: 1}

  - {verb: get, answer: throttled, retry_after: 30, times: 5}

A fault is spent after `times` requests (0: never). Verbs: put, get, list, delete, poll, create-operation,
delete-operation, cluster, usages, skus, permissions. Answers are the names in kaito/local/fakearm/answers.yaml.
"""


def fake_azure(
    state_dir: Annotated[Path, typer.Option(help="Folder of its state, certificates and azure.env.")],
    token_file: Annotated[Path, typer.Option(help="Bearer token of the node agent.")],
    port: Annotated[int, typer.Option(help="Port of the Resource Manager, over TLS.")] = 8443,
    plain_port: Annotated[int, typer.Option(help="Port of the metadata service and /healthz; 0: a free one.")] = 0,
    instances_url: Annotated[
        str, typer.Option(help="Address of the node agent that plays the machines.")
    ] = "http://127.0.0.1:10260",
    node_delay: Annotated[float, typer.Option(min=0, help="Seconds that making an agent pool takes.")] = 2.0,
    faults: Annotated[
        Path | None, typer.Option(help="YAML: delays, limits, quotas and faults, in the order they are to come.")
    ] = None,
) -> None:
    """Play Azure's Resource Manager: agent pools over TLS whose machines are simulated, with faults on request."""
    from kaito.local.fakearm.command import Options, run_fake_azure

    options = Options(
        state_dir.expanduser().absolute(), port, plain_port, instances_url, token_file, node_delay, faults
    )
    asyncio.run(run_fake_azure(options))
