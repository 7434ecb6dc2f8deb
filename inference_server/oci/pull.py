"""One image or artifact, from its reference to files in a folder.

In: a reference, credentials, where the files are wanted. Out: the files and the digest that they belong to. Two
shapes are understood: an image whose files lie under a path (upstream's busybox images with ``/data``; layers are
applied with whiteouts), and a plain OCI artifact whose layers are files named by their title. Blobs are checked on
arrival and unpacked from the disk only, so that no byte is looked at before its digest is known to be right.
"""

from __future__ import annotations

import asyncio
import platform
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from inference_server.oci.client import INDEXES, Manifest, RegistryClient
from inference_server.oci.credentials import PullSecrets
from inference_server.oci.download import Downloader, OnBytes
from inference_server.oci.errors import BadArtifact, Denied, DiskFull, TooLarge, of_os_error
from inference_server.oci.reference import Reference, parse
from inference_server.oci.unpack import Unpacker, UnpackLimits, free_bytes, safe_name

TITLE = "org.opencontainers.image.title"
_UNPACK = "io.deis.oras.content.unpack"  # oras: the layer is an archive of a folder
_MACHINES = {"x86_64": "amd64", "AMD64": "amd64", "aarch64": "arm64"}
_LAYERS = 10_000


@dataclass(frozen=True, slots=True)
class Layer:
    """One blob of an image. ``title`` is a file's name in a plain artifact, else empty."""

    digest: str
    size: int
    media_type: str
    title: str = ""
    unpack: bool = False


@dataclass(frozen=True, slots=True)
class Resolved:
    """An image that was looked up: what to fetch, and what it is called whatever happens to its tag."""

    reference: Reference  # with the digest of the manifest for this machine
    layers: tuple[Layer, ...]
    secrets: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """Digest of the manifest."""
        return self.reference.digest

    @property
    def size(self) -> int:
        """Bytes to download."""
        return sum(layer.size for layer in self.layers)

    @property
    def is_artifact(self) -> bool:
        """True where layers are named files."""
        return any(layer.title for layer in self.layers)


@dataclass(slots=True)
class Puller:
    """Pulls; one for a process."""

    client: RegistryClient
    secrets: PullSecrets = field(default_factory=PullSecrets)
    downloader: Downloader = field(default_factory=Downloader)

    async def resolve(self, image: str, wanted_secrets: Sequence[str] = ()) -> Resolved:
        """Look an image up in its registry. One attempt. Raises FetchError."""
        reference = parse(image)
        credentials = self.secrets.matching(reference, wanted_secrets)
        try:
            manifest = await self.client.manifest(reference, credentials)
        except Denied as error:
            missing = self.secrets.missing(wanted_secrets)
            if not missing:
                raise
            raise Denied(error.message, f"mount the pull secret {', '.join(missing)}, which is named") from error
        if manifest.media_type in INDEXES or "manifests" in manifest.fields:
            reference = replace(reference, digest=choose_platform(manifest, image, platform.machine()))
            manifest = await self.client.manifest(reference, credentials)
        reference = replace(reference, digest=manifest.digest)
        return Resolved(reference, layers_of(manifest, image), tuple(wanted_secrets))

    async def fetch(
        self,
        resolved: Resolved,
        folder: Path,
        *,
        prefixes: Sequence[str],
        limits: UnpackLimits,
        on_bytes: OnBytes = lambda _: None,
    ) -> None:
        """Bring the files into ``folder/files``; blobs on their way lie in ``folder/blobs``.

        The folder may hold what an earlier, interrupted call left there. ``prefixes`` are for images; of an
        artifact all files are taken. Raises FetchError.
        """
        if resolved.size > limits.stream_bytes or (resolved.is_artifact and resolved.size > limits.file_bytes):
            raise TooLarge(f"{resolved.reference} has {resolved.size} bytes, more than is allowed here")
        blobs, files = folder / "blobs", folder / "files"
        try:
            files.mkdir(parents=True, exist_ok=True)
            blobs.mkdir(exist_ok=True)
            there = sum(entry.stat().st_size for entry in blobs.iterdir())
            if resolved.size - there > free_bytes(folder):
                raise DiskFull(
                    f"{resolved.reference} needs {resolved.size - there} bytes and the disk has "
                    f"{free_bytes(folder)}",
                    "give the volume more room",
                )
        except OSError as error:
            raise of_os_error(error, folder) from error
        credentials = self.secrets.matching(resolved.reference, resolved.secrets)
        stop = threading.Event()
        where = ("",) if resolved.is_artifact else prefixes
        unpacker = Unpacker(files, where, limits, cancelled=stop.is_set)
        for number, layer in enumerate(resolved.layers):
            blob = blobs / layer.digest.replace(":", "-")
            applied = blobs / f"{number}.applied"
            if applied.exists():
                on_bytes(layer.size)
                continue
            source = self.client.blob(resolved.reference, layer.digest, credentials)
            await self.downloader.fetch(source, blob, digest=layer.digest, size=layer.size, on_bytes=on_bytes)
            await _beside(partial(_place, unpacker, layer, blob, files), stop)
            if not any(later.digest == layer.digest for later in resolved.layers[number + 1 :]):
                blob.unlink(missing_ok=True)
            applied.touch()


async def _beside(work: Callable[[], None], stop: threading.Event) -> None:
    """Run blocking work in a thread; a cancelled pull tells it to stop, and waits until it has."""
    task = asyncio.create_task(asyncio.to_thread(work), name="unpack")
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        stop.set()
        await asyncio.gather(task, return_exceptions=True)
        raise


def _place(unpacker: Unpacker, layer: Layer, blob: Path, files: Path) -> None:
    if not layer.title or layer.unpack:
        unpacker.layer(blob, layer.media_type)
        return
    try:
        target = files / safe_name(layer.title)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        target.hardlink_to(blob)  # the same bytes under their name, without a copy
    except OSError as error:
        raise of_os_error(error, files) from error


def choose_platform(index: Manifest, image: str, machine: str) -> str:
    """The digest of the index' manifest for this machine; of any machine's if there is none: data is data."""
    wanted = _MACHINES.get(machine, machine)
    entries = [entry for entry in index.fields.get("manifests") or [] if isinstance(entry, dict)]
    found = [(_platform(entry), str(entry.get("digest", ""))) for entry in entries]
    usable = [(where, digest) for where, digest in found if where != ("unknown", "unknown") and digest]
    for match in (("linux", wanted), ("", "")):
        for where, digest in usable:
            if where == match:
                return digest
    for (system, _), digest in usable:
        if system in ("linux", ""):
            return digest
    raise BadArtifact(f"{image} is an index without an image for Linux", "push one for linux/amd64")


def _platform(entry: Mapping[str, Any]) -> tuple[str, str]:
    where = entry.get("platform") or {}
    return (str(where.get("os", "")), str(where.get("architecture", ""))) if isinstance(where, dict) else ("", "")


def layers_of(manifest: Manifest, image: str) -> tuple[Layer, ...]:
    """The blobs that a manifest lists. Raises BadArtifact where it is not one."""
    listed = manifest.fields.get("layers")
    if not isinstance(listed, list) or not listed:
        raise BadArtifact(
            f"{image} has no layers", "push an image with files, or an artifact with one layer a file"
        )
    if len(listed) > _LAYERS:
        raise TooLarge(f"{image} has {len(listed)} layers")
    try:
        return tuple(_layer(entry) for entry in listed)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadArtifact(f"the manifest of {image} is malformed: {error}") from error


def _layer(entry: Mapping[str, Any]) -> Layer:
    digest, size = str(entry["digest"]), int(entry["size"])
    algorithm, _, value = digest.partition(":")
    if algorithm != "sha256" or len(value) != 64 or set(value) - set("0123456789abcdef") or size < 0:
        raise ValueError(f"layer {digest[:100]!r} of {size} bytes")
    annotations = entry.get("annotations") or {}
    title = str(annotations.get(TITLE, ""))
    unpack = str(annotations.get(_UNPACK, "")).lower() == "true"
    return Layer(digest, size, str(entry.get("mediaType", "")), title, unpack)
