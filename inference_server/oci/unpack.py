"""Layers of an image, unpacked into a folder as if their maker were an enemy.

In: layer archives in order (tar, perhaps gzipped), a prefix inside the image, limits. Out: the regular files and
folders below that prefix; whiteouts take away what lower layers put there. Nothing is ever written outside the
folder: a path that would leave it refuses the whole archive, and so do links, devices and anything else below the
prefix that is not plain data. Owners and modes are not taken over. Blocking: run it in a thread.
"""

from __future__ import annotations

import gzip
import os
import shutil
import tarfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from inference_server.oci.errors import BadArtifact, TooLarge, of_os_error

_WHITEOUT, _OPAQUE = ".wh.", ".wh..wh..opq"
_HEADER_BYTES = 1 << 20  # a name or an extended header that is longer is an attack on the memory
_COPY = 1 << 20


@dataclass(frozen=True, slots=True)
class UnpackLimits:
    """What one image may come to. ``stream_bytes`` counts all that is decompressed, wanted or not."""

    file_bytes: int = 8 << 30
    stream_bytes: int = 32 << 30
    files: int = 10_000
    members: int = 1_000_000


class Unpacker:
    """Unpacks the layers of one image, one after the other, into ``folder``.

    ``prefixes`` are paths inside the image without a leading slash; "" is everything. ``cancelled`` is asked now
    and then; when it says yes, InterruptedError ends the work.
    """

    def __init__(
        self,
        folder: Path,
        prefixes: Sequence[str],
        limits: UnpackLimits,
        *,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> None:
        self._folder = folder
        self._prefixes = tuple(PurePosixPath(prefix).parts for prefix in prefixes)
        self._limits = limits
        self._cancelled = cancelled
        self._bytes = 0
        self._stream = 0
        self._files = 0
        self._members = 0

    def layer(self, archive: Path, media_type: str) -> None:
        """Apply one layer. Raises FetchError."""
        if media_type.endswith(("zstd", "+zst")):
            raise BadArtifact("a layer is compressed with zstd", "build or push the image with gzip layers")
        written: set[Path] = set()
        try:
            with archive.open("rb") as file:
                raw: Any = gzip.GzipFile(fileobj=file) if _is_gzip(file) else file
                counted: Any = _Counted(raw, self._count_stream)
                with tarfile.open(fileobj=counted, mode="r|", tarinfo=_GuardedInfo) as members:
                    for member in members:
                        self._member(members, member, written)
                while counted.read(_COPY):  # the digest covered it; the limit must, too
                    pass
        except (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error, UnicodeError) as error:
            raise BadArtifact(f"a layer is not a sound tar archive: {error}", "build and push it again") from error
        except InterruptedError:
            raise
        except OSError as error:
            raise of_os_error(error, self._folder) from error

    def _count_stream(self, count: int) -> None:
        if self._cancelled():
            raise InterruptedError("unpacking was cancelled")
        self._stream += count
        if self._stream > self._limits.stream_bytes:
            raise TooLarge(f"the image unpacks to more than {self._limits.stream_bytes} bytes")

    def _member(self, members: tarfile.TarFile, member: tarfile.TarInfo, written: set[Path]) -> None:
        self._members += 1
        if self._members > self._limits.members:
            raise TooLarge(f"the image has more than {self._limits.members} entries")
        parts = _safe_parts(member.name)
        if not parts:
            return
        name = parts[-1]
        if name.startswith(_WHITEOUT):
            self._whiteout(parts[:-1], name, written)
            return
        if not self._wanted(parts):
            return
        target = self._folder.joinpath(*parts)
        if member.isdir():
            _clear_way(self._folder, target)
            target.mkdir(parents=True, exist_ok=True)
            written.add(target)
            return
        if not member.isreg():
            kind = "link" if member.issym() or member.islnk() else "special file"
            raise BadArtifact(f"{member.name!r} in the image is a {kind}", "put plain files and folders there")
        self._files += 1
        if self._files > self._limits.files:
            raise TooLarge(f"the image has more than {self._limits.files} files where they are wanted")
        source = members.extractfile(member)
        if source is not None:
            self._write(source, target)
            written.update((target, *(p for p in target.parents if self._folder in p.parents)))

    def _write(self, source: IO[bytes], target: Path) -> None:
        _clear_way(self._folder, target.parent)
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_dir():
            shutil.rmtree(target)
        target.unlink(missing_ok=True)
        with target.open("xb") as file:
            while chunk := source.read(_COPY):
                self._bytes += len(chunk)  # counted, because a sparse file's header says little of its size
                if self._bytes > self._limits.file_bytes:
                    raise TooLarge(f"the files in the image come to more than {self._limits.file_bytes} bytes")
                file.write(chunk)

    def _wanted(self, parts: tuple[str, ...]) -> bool:
        return any(parts[: len(prefix)] == prefix for prefix in self._prefixes)

    def _whiteout(self, parent: tuple[str, ...], name: str, written: set[Path]) -> None:
        folder = self._folder.joinpath(*parent)
        if name == _OPAQUE:
            for child in folder.iterdir() if folder.is_dir() else ():
                if child not in written:
                    _remove(child)
            return
        hidden = name.removeprefix(_WHITEOUT)
        if hidden not in ("", ".", "..") and folder / hidden not in written:
            _remove(folder / hidden)


def safe_name(name: str) -> PurePosixPath:
    """A relative path that stays below its folder. Raises BadArtifact for any other."""
    parts = _safe_parts(name)
    if not parts:
        raise BadArtifact(f"{name[:200]!r} is not the name of a file")
    return PurePosixPath(*parts)


def _safe_parts(name: str) -> tuple[str, ...]:
    if name.startswith("/") or "\0" in name or "\\" in name or ".." in name.split("/"):
        raise BadArtifact(
            f"the archive holds the path {name[:200]!r}, which leads out of its folder",
            "do not trust its origin; build it again",
        )
    return tuple(part for part in name.split("/") if part not in ("", "."))


def _is_gzip(file: IO[bytes]) -> bool:
    magic = file.read(2)
    file.seek(0)
    return magic == b"\x1f\x8b"


def _clear_way(root: Path, folder: Path) -> None:
    """A file of a lower layer where this one has a folder gives way."""
    for part in (*reversed(folder.parents), folder):
        if root in part.parents and part.is_file():
            part.unlink()


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


class _Counted:
    """A readable that reports how much was read."""

    def __init__(self, raw: IO[bytes], report: Callable[[int], None]) -> None:
        self._raw = raw
        self._report = report

    def read(self, size: int = -1) -> bytes:
        """As of a file."""
        data = self._raw.read(size)
        self._report(len(data))
        return data


class _GuardedInfo(tarfile.TarInfo):
    """Refuses headers that tarfile would read into memory whole, whatever size they claim."""

    def _proc_member(self, archive: tarfile.TarFile) -> Any:  # the hook that tarfile documents for subclasses
        in_memory = (
            tarfile.XHDTYPE,
            tarfile.XGLTYPE,
            tarfile.SOLARIS_XHDTYPE,
            tarfile.GNUTYPE_LONGNAME,
            tarfile.GNUTYPE_LONGLINK,
        )
        if self.type in in_memory and self.size > _HEADER_BYTES:
            raise TooLarge("an entry's header in the image is larger than any name needs")
        return super()._proc_member(archive)  # type: ignore[misc]


def free_bytes(folder: Path) -> int:
    """Room on the disk that holds the folder, or would hold it."""
    while not folder.exists():
        folder = folder.parent
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize
