"""Tables are padded as kubectl's, and progress is honest and says nothing twice."""

from __future__ import annotations

import io
import time

import pytest

from kaito.console import error, note, step, table
from kaito.tables import table_rows


def test_columns_are_padded_as_kubectl_does() -> None:
    """Three spaces between columns, no trailing blanks."""
    assert table([["NAME", "AGE"], ["a-long-name", "5s"]]) == "NAME          AGE\na-long-name   5s"
    assert table([["a", "b"]], [5, 1]) == "a       b"
    assert table([]) == ""


def test_a_servers_table_becomes_rows() -> None:
    """Columns of priority 1 are for wide only, null is <none>, and the namespace comes first where asked for."""
    reply = {
        "columnDefinitions": [{"name": "Name"}, {"name": "Ready", "priority": 0}, {"name": "Node", "priority": 1}],
        "rows": [{"cells": ["a", None, "n1"], "object": {"metadata": {"namespace": "x"}}}],
    }

    assert table_rows(reply, wide=False, with_namespace=False) == [["NAME", "READY"], ["a", "<none>"]]
    assert table_rows(reply, wide=True, with_namespace=True) == [
        ["NAMESPACE", "NAME", "READY", "NODE"],
        ["x", "a", "<none>", "n1"],
    ]
    assert table_rows({**reply, "rows": None}, wide=False, with_namespace=True) == [["NAMESPACE", "NAME", "READY"]]


def test_a_detail_is_printed_once(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a terminal, a detail that comes back is not printed again."""
    with step("waiting") as line:
        for detail in ["one", "two", "one", "", "two"]:
            line.detail = detail

    printed = capsys.readouterr().err.splitlines()
    assert [text.split("s  ")[-1] for text in printed[:-1]] == ["one", "two"]
    assert printed[-1] == "ok     waiting"


def test_a_step_that_fails_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    """A body that raises leaves a line that says failed, and its error goes on."""
    with pytest.raises(ValueError), step("trying"):
        raise ValueError

    assert capsys.readouterr().err.startswith("failed trying")


def test_only_a_step_that_took_time_shows_it(capsys: pytest.CaptureFixture[str]) -> None:
    """A step that was done before it was looked at has no time; another has."""
    with step("slow"):
        time.sleep(0.06)

    assert "0.1 s" in capsys.readouterr().err


def test_an_error_has_a_next_step(capsys: pytest.CaptureFixture[str]) -> None:
    """Message and next step are two lines on standard error."""
    error("it broke", "mend it")
    error("gone", title="Error from server (NotFound)")

    assert capsys.readouterr().err == "error: it broke\n  next: mend it\nError from server (NotFound): gone\n"


def test_a_lost_terminal_breaks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be written to standard error is dropped, so that a clean-up can go on."""

    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(5, "Input/output error")

    monkeypatch.setattr("sys.stderr", Gone())
    note("nobody hears this")
    with step("stopped"):
        pass
