"""What a run does with registries: a dataset from an image, the adapter into one, and on what it is put.

In: image references and secrets as files. Out: files in a folder, the digest of what was pushed. The pull half is
inference_server/oci, in whose errors it speaks; here they become ``TuneError``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from api.progress import TuneFailure
from inference_server.oci.backoff import Backoff
from inference_server.oci.client import RegistryClient, new_session
from inference_server.oci.credentials import FILE, Credential, PullSecrets, of_file
from inference_server.oci.download import Downloader
from inference_server.oci.errors import Denied, DiskFull, FetchError, NotFound
from inference_server.oci.pull import Puller
from inference_server.oci.reference import Reference, parse
from inference_server.oci.unpack import UnpackLimits
from inference_server.tuning.errors import TuneError
from inference_server.tuning.image import FOLDER, BaseImage, Blob, build
from inference_server.tuning.push import Pusher
from inference_server.tuning.settings import unusable

_CONFIG_BYTES: Final = 4 << 20
PATIENCE: Final = Backoff(first=1.0, attempts=6)
OnBytes = Callable[[int, int | None], None]


class SecretFiles(PullSecrets):
    """Secrets that are named one by one: files in docker's format, or folders that hold one."""

    def __init__(self, paths: Sequence[Path]) -> None:
        super().__init__()
        self._paths = tuple(_file(path) for path in paths)

    def matching(self, reference: Reference, wanted: Sequence[str] = ()) -> list[Credential]:
        """Credentials for a repository, in the order of the files."""
        return [credential for path in self._paths for credential in of_file(path, reference)]


async def pull_data(
    image: str,
    folder: Path,
    secrets: PullSecrets,
    *,
    most: int,
    insecure: Collection[str] = (),
    on_bytes: OnBytes = lambda _done, _total: None,
) -> Path:
    """The files that an image has under /data (of a plain artifact all); gives their folder. Raises TuneError."""
    limits = UnpackLimits(file_bytes=most, stream_bytes=2 * most, files=100_000)
    done = 0

    def count(size: int) -> None:
        nonlocal done
        done += size
        on_bytes(done, resolved.size)

    with _told(image):
        async with new_session() as session:
            puller = Puller(RegistryClient(session, insecure=insecure), secrets)
            resolved = await puller.resolve(image)
            place = folder / resolved.digest.replace(":", "-")
            await puller.fetch(resolved, place, prefixes=(FOLDER,), limits=limits, on_bytes=count)
    inside = place / "files" / FOLDER
    return inside if inside.is_dir() else place / "files"


async def check_push(image: str, secrets: PullSecrets, *, insecure: Collection[str] = ()) -> None:
    """Raises TuneError when the image cannot be pushed, so that this is known before training."""
    reference = _reference(image)
    async with new_session() as session:
        await Pusher(session, reference, secrets.matching(reference), insecure).check()


async def push_adapter(
    image: str,
    files: Mapping[str, Path],
    folder: Path,
    secrets: PullSecrets,
    *,
    labels: Mapping[str, str],
    base: str | None = None,
    insecure: Collection[str] = (),
    backoff: Backoff = PATIENCE,
    on_bytes: OnBytes = lambda _done, _total: None,
) -> str:
    """Builds the image in ``folder`` and pushes it; gives the digest of its manifest. Raises TuneError."""
    reference = _reference(image)
    folder.mkdir(parents=True, exist_ok=True)
    async with new_session() as session:
        below, beside = BaseImage(), list[Blob]()
        if base:
            with _told(base):
                below, beside = await _base(RegistryClient(session, insecure=insecure), base, folder, secrets)
        built = build(files, folder, labels=labels, base=below)
        total = sum(blob.size for blob in (*beside, built.layer, built.config))
        done = 0

        def count(size: int) -> None:
            nonlocal done
            done += size
            on_bytes(done, total)

        pusher = Pusher(session, reference, secrets.matching(reference), insecure, backoff, on_bytes=count)
        return await pusher.push(built, beside)


async def _base(
    client: RegistryClient, image: str, folder: Path, secrets: PullSecrets
) -> tuple[BaseImage, list[Blob]]:
    """A base image's configuration, and its layers as files to push along."""
    resolved = await Puller(client, secrets).resolve(image)
    credentials = secrets.matching(resolved.reference)
    manifest = await client.manifest(resolved.reference, credentials)
    blobs: list[Blob] = []
    wanted = [manifest.fields["config"], *manifest.fields["layers"]]
    for entry in wanted:
        path = folder / "base" / entry["digest"].replace(":", "-")
        source = client.blob(resolved.reference, entry["digest"], credentials)
        await Downloader().fetch(source, path, digest=entry["digest"], size=entry["size"])
        blobs.append(Blob(entry["digest"], entry["size"], entry["mediaType"], path))
    config = json.loads(blobs[0].data.read_bytes()) if isinstance(blobs[0].data, Path) else {}
    layers = [{**blob.descriptor(), "mediaType": _oci(blob.media_type)} for blob in blobs[1:]]
    return BaseImage(layers, config), blobs[1:]


def _oci(media_type: str) -> str:
    """Docker's name of a layer's format as OCI's: one manifest speaks one language."""
    return media_type.replace(
        "application/vnd.docker.image.rootfs.diff.tar.gzip", "application/vnd.oci.image.layer.v1.tar+gzip"
    )


def _reference(image: str) -> Reference:
    try:
        reference = parse(image)
    except FetchError as error:
        raise unusable(f"--output-image {error.message}", error.next_step) from error
    if reference.digest:
        raise unusable(f"--output-image {image}: a digest cannot be chosen", "write registry/repository:tag")
    return reference


def _file(path: Path) -> Path:
    if not path.is_dir():
        return path
    return next((path / name for name in (FILE, "config.json") if (path / name).is_file()), path / FILE)


@contextmanager
def _told(image: str) -> Iterator[None]:
    """What the pull half raises, in a run's words."""
    try:
        yield
    except FetchError as error:
        reason = TuneFailure.DATASET_INVALID
        if isinstance(error, DiskFull):
            reason = TuneFailure.DISK_FULL
        elif isinstance(error, NotFound | Denied) or error.transient:
            reason = TuneFailure.DATASET_NOT_FOUND
        temporary = error.transient and not isinstance(error, DiskFull)
        text = error.message if image in error.message else f"{image}: {error.message}"
        raise TuneError(reason, text, error.next_step, temporary=temporary) from error
