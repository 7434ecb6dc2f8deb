"""Manifests become objects, and every mistake is named with its place."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from kaito.errors import CliError
from kaito.manifests import parse, read

GOOD = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n"


def test_documents_lists_and_json_give_objects_in_order() -> None:
    """Several documents, a List and JSON in one text are read in their order, empty documents left out."""
    text = GOOD + "---\n---\nkind: List\nitems:\n- {apiVersion: v1, kind: Secret, metadata: {name: b}}\n---\n"
    text += '{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "c"}}'

    assert [(o["kind"], o["metadata"]["name"]) for o in parse("x", text)] == [
        ("ConfigMap", "a"),
        ("Secret", "b"),
        ("Service", "c"),
    ]


def test_a_folder_gives_its_manifests_sorted(tmp_path: Path) -> None:
    """A folder stands for its .yaml, .yml and .json files in the order of their names."""
    (tmp_path / "2.yml").write_text(GOOD.replace("name: a", "name: second"))
    (tmp_path / "1.yaml").write_text(GOOD.replace("name: a", "name: first"))
    (tmp_path / "note.txt").write_text("not: [a manifest")

    assert [o["metadata"]["name"] for o in read([str(tmp_path)])] == ["first", "second"]


def test_standard_input_is_a_source(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dash reads standard input."""
    monkeypatch.setattr("sys.stdin", io.StringIO(GOOD))

    assert read(["-"])[0]["metadata"]["name"] == "a"


def test_a_date_stays_text() -> None:
    """A value that YAML takes for a date is a string, as Kubernetes' parser leaves it."""
    obj = parse("x", GOOD + "data: {day: 2024-01-31}\n")[0]

    assert obj["data"]["day"] == "2024-01-31"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: b\n\tc: d\n", "x:2:1 is not YAML"),
        ("a: [1, 2", "x:1:9 is not YAML"),
        ("- 1\n", "a list where an object belongs"),
        ("just words", "a text where an object belongs"),
        ("kind: Pod\nmetadata: {name: a}\n", "no apiVersion"),
        ("apiVersion: v1\nmetadata: {name: a}\n", "no kind"),
        ("apiVersion: v1\nkind: Pod\n", "the Pod has no metadata.name"),
        ("apiVersion: v1\nkind: Pod\nmetadata: a\n", "the Pod has no metadata.name"),
        ("apiVersion: v1\nkind: Pod\nmetadata: {name: 12}\n", "a number for metadata.name"),
        ("apiVersion: v1\nkind: Pod\nmetadata: {name: no}\n", "a true or false for metadata.name"),
        (GOOD + "kind: Secret\n", 'x:4:1 is not YAML: the key "kind" is there twice'),
        ("kind: List\nitems: [1]\n", "a number where an object belongs"),
        ("a: !!python/object:os.system {}\n", "is not YAML"),
        ("a: \x00\n", "is not YAML"),
    ],
)
def test_a_mistake_is_named(text: str, said: str) -> None:
    """What is no manifest is refused with the place and the reason, in one line."""
    with pytest.raises(CliError) as refused:
        parse("x", text)

    assert said in refused.value.message
    assert "\n" not in refused.value.message
    assert refused.value.next_step


@pytest.mark.parametrize("name", ["missing.yaml", "empty", "bytes.yaml", "nothing.yaml", "null\0byte"])
def test_a_source_that_cannot_be_read_is_named(tmp_path: Path, name: str) -> None:
    """A missing file, an empty folder, bytes that are no text, and a file without objects are each refused."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00a")
    (tmp_path / "nothing.yaml").write_text("# only a comment\n")

    with pytest.raises(CliError, match=name.split("\0")[0]):
        read([str(tmp_path / name)])
