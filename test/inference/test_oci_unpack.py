"""Archives by enemies: nothing leaves the folder, nothing fills the disk or the memory."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path

import pytest

from inference_server.oci.errors import BadArtifact, FetchError, TooLarge
from inference_server.oci.unpack import Unpacker, UnpackLimits, safe_name
from inference_server.testing.images import OCI_LAYER, archive, files_of


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.linkname = target
    return info


def unpack(
    tmp_path: Path, *layers: bytes, prefixes=("data",), limits: UnpackLimits | None = None
) -> dict[str, bytes]:
    folder = tmp_path / "out"
    folder.mkdir(exist_ok=True)
    unpacker = Unpacker(folder, ("data",), limits or UnpackLimits())
    for number, layer in enumerate(layers):
        path = tmp_path / f"layer{number}"
        path.write_bytes(layer)
        unpacker.layer(path, OCI_LAYER)
    return files_of(folder)


def test_only_what_is_below_the_prefix_arrives(tmp_path):
    """A busybox image's programs, links and devices stay out; its /data comes, gzipped or not."""
    busybox = archive(
        [
            ("bin/busybox", b"x"),
            special("bin/sh", tarfile.SYMTYPE, "busybox"),
            special("dev/null", tarfile.CHRTYPE),
        ]
    )
    data = archive({"./data/adapter_config.json": b"{}", "data/sub/x": b"1", "database/no": b"2"}, zipped=False)
    assert unpack(tmp_path, busybox, data) == {"data/adapter_config.json": b"{}", "data/sub/x": b"1"}


def test_whiteouts_hide_what_lower_layers_have(tmp_path):
    """A whiteout removes one entry, an opaque one all of its folder's, but nothing of its own layer."""
    lower = archive({"data/a": b"1", "data/b": b"1", "data/dir/old": b"1", "data/dir/older": b"1"})
    upper = archive([("data/.wh.a", b""), ("data/dir/new", b"2"), ("data/dir/.wh..wh..opq", b"")])
    assert unpack(tmp_path, lower, upper) == {"data/b": b"1", "data/dir/new": b"2"}


def test_a_later_layer_wins_even_over_another_kind(tmp_path):
    """A file replaces a file, a folder a file, and a file a folder."""
    lower = archive({"data/x": b"old", "data/y": b"file", "data/z/in": b"1"})
    upper = archive({"data/x": b"new", "data/y/in": b"2", "data/z": b"file"})
    assert unpack(tmp_path, lower, upper) == {"data/x": b"new", "data/y/in": b"2", "data/z": b"file"}


@pytest.mark.parametrize(
    "entry",
    [
        ("../evil", b"x"),
        ("data/../../evil", b"x"),
        ("/etc/evil", b"x"),
        ("data/..", b"x"),
        ("data\\..\\evil", b"x"),
        special("data/link", tarfile.SYMTYPE, "/etc/passwd"),
        special("data/link", tarfile.SYMTYPE, "inside"),
        special("data/hard", tarfile.LNKTYPE, "../../etc/passwd"),
        special("data/fifo", tarfile.FIFOTYPE),
        special("data/disk", tarfile.BLKTYPE),
    ],
    ids=lambda entry: f"{entry.name} to {entry.linkname}" if isinstance(entry, tarfile.TarInfo) else entry[0],
)
def test_what_leads_out_or_is_no_plain_file_is_refused(tmp_path, entry):
    """Paths out of the folder, links and devices refuse the whole archive, and write nothing outside."""
    with pytest.raises(BadArtifact):
        unpack(tmp_path, archive([entry]))
    assert {path.name for path in tmp_path.iterdir()} == {"out", "layer0"}


def test_a_link_and_then_a_file_through_it_writes_nothing(tmp_path):
    """The classical attack: a link to elsewhere in one layer, a file below it in the next."""
    with pytest.raises(BadArtifact, match="link"):
        unpack(
            tmp_path,
            archive([special("data", tarfile.SYMTYPE, str(tmp_path / "victim"))]),
            archive({"data/evil": b"x"}),
        )
    assert not (tmp_path / "victim").exists()


def sparse(name: str, real: int) -> bytes:
    """A GNU sparse file: a header that claims a size, and no bytes."""
    info = tarfile.TarInfo(name)
    info.type = tarfile.GNUTYPE_SPARSE
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[386:410] = b"%011o\0%011o\0" % (0, 0)
    header[483:495] = b"%011o\0" % real
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + bytes(1024)


@pytest.mark.parametrize(
    ("layer", "limits"),
    [
        (archive({"data/x": bytes(2000)}), UnpackLimits(file_bytes=1000)),
        (archive({"junk/x": bytes(100_000)}), UnpackLimits(stream_bytes=50_000)),
        (archive({f"data/{n}": b"" for n in range(20)}), UnpackLimits(files=10)),
        (archive({f"junk/{n}": b"" for n in range(20)}), UnpackLimits(members=10)),
        (sparse("data/x", 1 << 40), UnpackLimits(file_bytes=1 << 20)),
        (gzip.compress(archive({}, zipped=False) + bytes(1 << 20)), UnpackLimits(stream_bytes=100_000)),
    ],
    ids=["files", "skipped", "count", "members", "sparse", "padding"],
)
def test_bombs_end_at_the_limit(tmp_path, layer, limits):
    """Bytes wanted or skipped, entries and claimed sizes all have a limit."""
    with pytest.raises(TooLarge):
        unpack(tmp_path, layer, limits=limits)


def test_a_header_that_claims_gigabytes_is_not_read(tmp_path):
    """An extended header's size is checked before tarfile would read it into memory."""
    info = tarfile.TarInfo("x")
    info.type = tarfile.XHDTYPE
    info.size = 8 << 30
    with pytest.raises(TooLarge, match="header"):
        unpack(tmp_path, info.tobuf(tarfile.GNU_FORMAT))


@pytest.mark.parametrize(
    "layer",
    [b"", b"\x1f\x8b", b"no archive at all" * 100, gzip.compress(b"x" * 700)[:-4]],
    ids=["empty", "a beginning", "text", "cut"],
)
def test_a_damaged_archive_is_a_bad_artifact(tmp_path, layer):
    """Whatever is no archive ends in our own error, or in nothing where it is empty."""
    try:
        assert unpack(tmp_path, layer) == {}
    except FetchError as error:
        assert isinstance(error, BadArtifact)


def test_zstd_is_refused_with_what_to_do(tmp_path):
    """A layer that we cannot read says how to make one that we can."""
    (tmp_path / "layer").write_bytes(b"x")
    with pytest.raises(BadArtifact, match="gzip"):
        Unpacker(tmp_path, ("data",), UnpackLimits()).layer(tmp_path / "layer", "application/x.tar+zstd")


@pytest.mark.parametrize("name", ["", ".", "/etc/x", "../x", "a/../../x", "a\0b"])
def test_a_files_title_stays_below_its_folder(name):
    """The names of an artifact's files are judged as those in archives."""
    with pytest.raises(BadArtifact):
        safe_name(name)


def test_cancelling_ends_the_work(tmp_path):
    """A pull that is given up stops unpacking soon."""
    (tmp_path / "layer").write_bytes(archive({"data/x": io.BytesIO(bytes(1 << 20)).getvalue()}))
    with pytest.raises(InterruptedError):
        Unpacker(tmp_path, ("data",), UnpackLimits(), cancelled=lambda: True).layer(tmp_path / "layer", OCI_LAYER)
