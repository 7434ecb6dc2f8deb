"""Certificates in files: what writers of files do to them, in virtual time."""

from __future__ import annotations

import asyncio
import datetime as dt
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from manager.certs.pems import Pair, make_authority, make_serving
from manager.certs.watcher import DEFAULT_DIR, CertWatcher

pytestmark = [pytest.mark.looptime, pytest.mark.acceptance("FW-H10")]

NOW = dt.datetime.now(dt.UTC)
HOUR = dt.timedelta(hours=1)
AUTHORITY = make_authority("test", not_before=NOW - HOUR, not_after=NOW + HOUR)
ONE, TWO, THREE = (
    make_serving(AUTHORITY, [name], not_before=NOW - HOUR, not_after=NOW + HOUR) for name in ("a", "b", "c")
)


def put(folder: Path, pair: Pair) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "tls.crt").write_bytes(pair.cert)
    (folder / "tls.key").write_bytes(pair.key)


@asynccontextmanager
async def watching(folder: Path, registry: CollectorRegistry | None = None) -> AsyncIterator[CertWatcher]:
    watcher = CertWatcher(folder / "tls.crt", folder / "tls.key", registry=registry)
    task = asyncio.create_task(watcher.run())
    await asyncio.sleep(0)
    try:
        yield watcher
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_files_that_are_written_are_loaded(tmp_path: Path) -> None:
    """Within two seconds; the callback gets the certificate, once per change."""
    put(tmp_path, ONE)
    seen: list[bytes] = []
    async with watching(tmp_path) as watcher:
        watcher.serving.on_change(seen.append)
        first = watcher.serving.certificate
        put(tmp_path, TWO)
        await asyncio.sleep(2)
        second = watcher.serving.certificate
        await asyncio.sleep(60)

    assert (first, second) == (ONE.cert, TWO.cert)
    assert seen == [TWO.cert]


async def test_a_rename_over_the_files_is_seen(tmp_path: Path) -> None:
    """Writers that replace a file by another one change its inode."""
    put(tmp_path / "live", ONE)
    async with watching(tmp_path / "live") as watcher:
        put(tmp_path / "next", TWO)
        for name in ("tls.crt", "tls.key"):
            (tmp_path / "next" / name).rename(tmp_path / "live" / name)
        await asyncio.sleep(2)
        found = watcher.serving.certificate

    assert found == TWO.cert


async def test_files_that_are_removed_and_come_back_are_seen(tmp_path: Path) -> None:
    """While they are gone the old pair is used."""
    put(tmp_path, ONE)
    async with watching(tmp_path) as watcher:
        (tmp_path / "tls.crt").unlink()
        await asyncio.sleep(20)
        meanwhile = watcher.serving.certificate
        put(tmp_path, TWO)
        await asyncio.sleep(2)
        found = watcher.serving.certificate

    assert (meanwhile, found) == (ONE.cert, TWO.cert)


async def test_the_kubelets_swap_of_a_link_is_seen(tmp_path: Path) -> None:
    """A mounted Secret is links into ``..data``, which is a link that is replaced by a rename."""
    put(tmp_path / "..1", ONE)
    (tmp_path / "..data").symlink_to("..1")
    for name in ("tls.crt", "tls.key"):
        (tmp_path / name).symlink_to(Path("..data") / name)
    async with watching(tmp_path) as watcher:
        put(tmp_path / "..2", TWO)
        (tmp_path / "..tmp").symlink_to("..2")
        (tmp_path / "..tmp").rename(tmp_path / "..data")
        await asyncio.sleep(2)
        found = watcher.serving.certificate

    assert found == TWO.cert


async def test_a_change_that_stat_does_not_show_is_read_in_ten_seconds(tmp_path: Path) -> None:
    """Same inode, size and time: the content is read anyway."""
    put(tmp_path, ONE)
    async with watching(tmp_path) as watcher:
        marks = {path: path.stat() for path in (tmp_path / "tls.crt", tmp_path / "tls.key")}
        put(tmp_path, TWO)
        for path, before in marks.items():
            os.truncate(path, max(before.st_size, path.stat().st_size))
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        await asyncio.sleep(11)
        found = watcher.serving.certificate

    assert found is not None
    assert found.startswith(TWO.cert)


async def test_a_bad_pair_keeps_the_old_one_and_is_counted(tmp_path: Path) -> None:
    """A certificate without its key, as between two writes, counts an error; the second write repairs it."""
    registry = CollectorRegistry()
    put(tmp_path, ONE)
    async with watching(tmp_path, registry) as watcher:
        (tmp_path / "tls.crt").write_bytes(TWO.cert)
        await asyncio.sleep(2)
        between = watcher.serving.certificate
        errors = registry.get_sample_value("certwatcher_read_certificate_errors_total")
        (tmp_path / "tls.key").write_bytes(TWO.key)
        await asyncio.sleep(2)
        found = watcher.serving.certificate
        reads = registry.get_sample_value("certwatcher_read_certificate_total")

    assert (between, found) == (ONE.cert, TWO.cert)
    assert (errors, reads) == (1, 3)


async def test_files_that_come_late_are_waited_for(tmp_path: Path) -> None:
    """No certificate at the start is an error that is counted, not the end."""
    registry = CollectorRegistry()
    async with watching(tmp_path, registry) as watcher:
        early = watcher.serving.certificate
        put(tmp_path, THREE)
        async with asyncio.timeout(2):
            await watcher.serving.ready()

    assert early is None
    assert registry.get_sample_value("certwatcher_read_certificate_errors_total") == 1


async def test_several_watchers_share_their_metrics(tmp_path: Path) -> None:
    """Webhook and metrics servers of one manager count together."""
    registry = CollectorRegistry()
    put(tmp_path, ONE)
    async with watching(tmp_path, registry), watching(tmp_path, registry):
        pass

    assert registry.get_sample_value("certwatcher_read_certificate_total") == 2
    assert DEFAULT_DIR.parts[-2:] == ("k8s-webhook-server", "serving-certs")


async def test_a_callback_that_fails_harms_nobody(tmp_path: Path) -> None:
    """The certificate is used and the other callbacks are called."""
    seen: list[bytes] = []

    def broken(_: bytes) -> None:
        raise RuntimeError("bug")

    put(tmp_path, ONE)
    async with watching(tmp_path) as watcher:
        watcher.serving.on_change(broken)
        watcher.serving.on_change(seen.append)
        put(tmp_path, TWO)
        await asyncio.sleep(2)

    assert seen == [TWO.cert]
