"""The map on disk: what it keeps over a restart, a kill and a torn line."""

from __future__ import annotations

from pathlib import Path

import pytest

from kaito.local.node.journal import Journal


def test_a_restart_finds_the_last_value_of_every_key(tmp_path: Path) -> None:
    """Puts, changes in place and drops are all there for the next process, in the order of the first put."""
    journal = Journal(tmp_path / "map")
    for key in "abc":
        journal.put(key, {"state": "new"})
    journal.items["b"]["state"] = "old"
    journal.put("b", journal.items["b"])
    journal.drop("a")

    assert Journal(tmp_path / "map").items == {"b": {"state": "old"}, "c": {"state": "new"}}


def test_a_torn_last_line_is_dropped_and_written_over(tmp_path: Path) -> None:
    """A machine that was lost in the middle of a line loses that line alone, and the file goes on whole."""
    file = tmp_path / "map"
    Journal(file).put("a", 1)
    with file.open("ab") as end:
        end.write(b'["b",')

    found = Journal(file)
    found.put("c", 3)

    assert found.items == Journal(file).items == {"a": 1, "c": 3}


@pytest.mark.parametrize("content", ["{oops", '{"a": 1}\n', "[1, 2]\n", '["a", 1, 2]\n'])
def test_another_file_is_refused(tmp_path: Path, content: str) -> None:
    """What is not a journal is never overwritten."""
    (tmp_path / "map").write_text(content)

    with pytest.raises(ValueError, match=r".+"):
        Journal(tmp_path / "map")


def test_the_file_does_not_grow_with_the_number_of_changes(tmp_path: Path) -> None:
    """Ten thousand changes of ten keys leave a file of some thousand lines at most, and all values."""
    journal = Journal(tmp_path / "map")
    for number in range(10_000):
        journal.put(f"key-{number % 10}", number)

    assert len((tmp_path / "map").read_bytes().splitlines()) <= 1000
    assert Journal(tmp_path / "map").items == {f"key-{n}": 9990 + n for n in range(10)}
