from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from kaito.local.apiserver.storage import (
    Change,
    Compacted,
    Exists,
    Missing,
    Stale,
    Storage,
    StorageDamaged,
    WriteFailed,
)
from manager.types import Obj


def obj(name: str, **more: object) -> Obj:
    return {"metadata": {"name": name}, **more}


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[Storage]:
    opened = Storage(tmp_path / "state.db")
    yield opened
    opened.close()


def names(storage: Storage, revision: int) -> list[tuple[str, object]]:
    return [(r.name, r.obj.get("v")) for r in storage.all_at("things", None, revision)]


def test_one_number_rises_with_every_write_of_any_resource(storage: Storage) -> None:
    """Revisions are consecutive across resources, and each object carries its own as resourceVersion."""
    first = storage.create("things", "", "a", obj("a"))
    second = storage.create("others", "n", "a", obj("a"))
    third = storage.update("things", "", "a", obj("a", v=1), expected=first.revision)
    fourth = storage.delete("others", "n", "a", expected=second.revision)

    assert [first.revision, second.revision, third.revision, fourth.revision] == [1, 2, 3, 4]
    assert third.obj["metadata"]["resourceVersion"] == "3"
    assert storage.revision == 4


def test_a_writer_with_an_old_revision_is_refused(storage: Storage) -> None:
    """An update or delete that names another revision than the current one changes nothing."""
    storage.create("things", "", "a", obj("a"))
    storage.update("things", "", "a", obj("a", v=1), expected=1)

    with pytest.raises(Stale):
        storage.update("things", "", "a", obj("a", v=2), expected=1)
    with pytest.raises(Stale):
        storage.delete("things", "", "a", expected=1)
    with pytest.raises(Missing):
        storage.update("things", "", "b", obj("b"), expected=1)
    with pytest.raises(Exists):
        storage.create("things", "", "a", obj("a"))

    assert names(storage, storage.revision) == [("a", 1)]


def test_the_past_can_be_read_until_it_is_compacted(storage: Storage) -> None:
    """Any revision since the last compaction gives exactly the objects of that moment."""
    storage.create("things", "n", "a", obj("a", v=1))
    storage.create("things", "n", "b", obj("b", v=1))
    storage.update("things", "n", "a", obj("a", v=2), expected=1)
    storage.delete("things", "n", "b", expected=2)
    storage.create("things", "m", "b", obj("b", v=3))

    assert names(storage, 1) == [("a", 1)]
    assert names(storage, 2) == [("a", 1), ("b", 1)]
    assert names(storage, 3) == [("a", 2), ("b", 1)]
    assert names(storage, 5) == [("b", 3), ("a", 2)]

    storage.compact(3)

    assert names(storage, 3) == [("a", 2), ("b", 1)]
    with pytest.raises(Compacted):
        storage.all_at("things", None, 2)
    with pytest.raises(Compacted):
        storage.changes("things", 2)


def test_subscribers_see_every_change_with_the_state_before(storage: Storage) -> None:
    """A subscriber of a resource is told of its changes in order, and of no other resource."""
    seen: list[Change] = []
    stop = storage.subscribe("things", seen.append)
    storage.create("things", "", "a", obj("a", v=1))
    storage.create("others", "", "a", obj("a"))
    storage.update("things", "", "a", obj("a", v=2), expected=1)
    stop()
    storage.delete("things", "", "a", expected=3)

    assert [(c.type, c.record.revision, c.previous and c.previous.obj["v"]) for c in seen] == [
        ("ADDED", 1, None),
        ("MODIFIED", 3, 1),
    ]


def test_a_reopened_database_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """Objects, history, compaction and the revision counter survive; no revision is given out twice."""
    path = tmp_path / "state.db"
    storage = Storage(path)
    storage.create("things", "", "a", obj("a", v=1))
    storage.create("things", "", "b", obj("b", v=1))
    storage.delete("things", "", "b", expected=2)
    storage.compact(1)
    storage.close()

    again = Storage(path)
    assert again.revision == 3
    assert [r.name for r in again.all("things")] == ["a"]
    assert [c.type for c in again.changes("things", 1)] == ["ADDED", "DELETED"]
    with pytest.raises(Compacted):
        again.changes("things", 0)
    assert again.create("things", "", "c", obj("c")).revision == 4
    again.close()


def test_the_counter_survives_a_complete_compaction(tmp_path: Path) -> None:
    """A database whose whole history is compacted still never gives out an old revision."""
    storage = Storage(tmp_path / "state.db")
    storage.create("things", "", "a", obj("a"))
    storage.delete("things", "", "a", expected=1)
    storage.compact(2)
    storage.close()

    again = Storage(tmp_path / "state.db")
    assert again.create("things", "", "b", obj("b")).revision == 3
    again.close()


def test_a_file_that_is_no_database_is_named_with_the_way_out(tmp_path: Path) -> None:
    """A damaged or foreign file is an error that says how to go on, and the file stays as it was."""
    path = tmp_path / "state.db"
    path.write_bytes(b"this is no database" * 100)

    with pytest.raises(StorageDamaged, match=r"mv .*state\.db.*broken"):
        Storage(path)

    assert path.read_bytes().startswith(b"this is no database")


def test_a_damaged_page_is_found_at_the_start(tmp_path: Path) -> None:
    """Bytes that rotted in the middle of the file are found before anything is served."""
    path = tmp_path / "state.db"
    storage = Storage(path)
    for number in range(200):
        storage.create("things", "", f"n{number}", obj("x", text="y" * 500))
    storage.close()
    raw = bytearray(path.read_bytes())
    raw[8192:24576] = b"\xff" * 16384
    path.write_bytes(raw)

    with pytest.raises(StorageDamaged, match="mv "):
        Storage(path)


def test_another_format_is_refused(tmp_path: Path) -> None:
    """A database of another version of the program is not touched."""
    path = tmp_path / "state.db"
    Storage(path).close()
    with sqlite3.connect(path) as db:
        db.execute("UPDATE meta SET value='99' WHERE key='format'")
    db.close()

    with pytest.raises(StorageDamaged, match="format is 99"):
        Storage(path)


def test_a_write_that_cannot_reach_the_disk_did_not_happen(storage: Storage) -> None:
    """When SQLite refuses, the caller is told, memory and disk agree, and later writes work."""
    storage.create("things", "", "a", obj("a"))
    blocker = sqlite3.connect(storage.path)
    blocker.execute("BEGIN IMMEDIATE")
    try:
        with pytest.raises(WriteFailed, match="locked"):
            storage.create("things", "", "b", obj("b"))
    finally:
        blocker.rollback()
        blocker.close()

    assert storage.get("things", "", "b") is None
    assert storage.create("things", "", "b", obj("b")).revision == 2


def test_checkpoints_run_beside_writes(storage: Storage) -> None:
    """A checkpoint moves the log into the file and disturbs nobody."""
    for number in range(50):
        storage.create("things", "", f"n{number}", obj("x"))
    storage.checkpoint()
    storage.create("things", "", "after", obj("after"))

    with sqlite3.connect(f"file:{storage.path}?immutable=1", uri=True) as db:
        count = db.execute("SELECT count(*) FROM objects").fetchone()[0]
    db.close()
    assert count == 50  # the file alone, without its log
