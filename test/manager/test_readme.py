"""The README's operator, taken from the page and run against real API servers."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

import manager
from manager import AlreadyExists, Client, NotFound, Obj, Resource
from manager.resources import CONFIGMAPS, CRDS, EVENTS
from manager.testing import eventually

if TYPE_CHECKING:
    from conftest import Server

README = Path(manager.__file__).with_name("README.md")
WEBSITES = Resource("example.com", "v1", "websites", "Website")


def block(name: str) -> str:
    """The code block that begins with a comment of its file name."""
    found = re.search(rf"^```\w+\n(# {re.escape(name)}\n.*?)^```$", README.read_text(), re.DOTALL | re.MULTILINE)
    assert found is not None
    return found[1]


async def test_the_operator_of_the_readme_works_as_the_page_says(
    api_server: Server, namespace: str, tmp_path: Path
) -> None:
    """It makes the page, tells so, follows an edit, mends what was deleted, and ends with 0 at Ctrl-C."""
    program = tmp_path / "website.py"
    program.write_text(block("website.py"))
    async with Client(api_server.config) as client:
        await install(client)
        await client.create(WEBSITES, site(namespace, "Hello"))
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            program,
            env={**os.environ, "KUBECONFIG": str(api_server.kubeconfig), "PYTHONPATH": str(README.parent.parent)},
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            await published(client, namespace, "Hello")
            (event,) = await eventually(lambda: events(client, namespace))
            await client.patch(WEBSITES, "hello", {"spec": {"title": "Bye"}}, namespace=namespace)
            await published(client, namespace, "Bye")
            await client.delete(CONFIGMAPS, "hello", namespace)
            await published(client, namespace, "Bye")
            await client.delete(WEBSITES, "hello", namespace)
            with pytest.raises(NotFound):
                await client.get(WEBSITES, "hello", namespace)
            process.send_signal(signal.SIGINT)
            _, log = await asyncio.wait_for(process.communicate(), 20)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    assert event["message"] == "'Hello' is in ConfigMap hello"
    assert process.returncode == 0, log.decode()
    assert b"Traceback" not in log


async def install(client: Client) -> None:
    """Put the page's CRD there, once, and wait until the server serves it."""
    try:
        await client.create(CRDS, yaml.safe_load(block("crd.yaml")))
    except AlreadyExists:
        pass
    await eventually(lambda: client.discover("example.com", "Website", "v1"))


def site(namespace: str, title: str) -> Obj:
    return {"metadata": {"name": "hello", "namespace": namespace}, "spec": {"title": title}}


async def published(client: Client, namespace: str, title: str) -> None:
    """Wait until the page and the status are there."""

    async def check() -> bool:
        page = await client.get(CONFIGMAPS, "hello", namespace)
        website = await client.get(WEBSITES, "hello", namespace)
        (owner,) = page["metadata"]["ownerReferences"]
        return (
            page["data"] == {"index.html": f"<h1>{title}</h1>"}
            and owner["uid"] == website["metadata"]["uid"]
            and website.get("status") == {"configMap": "hello", "title": title}
        )

    await eventually(check, timeout=30)


async def events(client: Client, namespace: str) -> list[Obj]:
    return (await client.list(EVENTS, namespace)).items
