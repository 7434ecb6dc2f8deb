"""The names that the framework offers, and that offering them costs nothing."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import manager
import manager.testing

faces = pytest.mark.parametrize("face", [manager, manager.testing], ids=["manager", "testing"])

FIRST_NAMES = {
    *("Manager", "ControllerBuilder", "Reconciler", "Request", "Result", "TerminalError", "Resource"),
    *("Client", "PatchType", "Obj", "load_config", "run_until_signal", "NotFound", "Conflict"),
    *("Finalizers", "with_controller_reference", "create_or_update", "EventRecorder", "LeaderElection"),
}


def declared(face: ModuleType) -> dict[str, str]:
    """The names that a type checker sees, and the modules that they come from."""
    assert face.__file__ is not None
    tree = ast.parse(Path(face.__file__).read_text())
    (block,) = (
        node
        for node in tree.body
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
    )
    return {
        alias.name: str(node.module)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


@faces
def test_what_a_type_checker_sees_is_what_there_is(face: ModuleType) -> None:
    """Every declared name is exported and is the one of its module; nothing else is exported."""
    seen = declared(face)

    assert sorted(seen) == sorted(face.__all__)
    for name, module in seen.items():
        assert getattr(face, name) is getattr(importlib.import_module(module), name)
    assert set(face.__all__) <= set(dir(face))


@faces
def test_no_name_is_that_of_a_module(face: ModuleType) -> None:
    """An import of the module would put it in the name's place."""
    assert face.__file__ is not None
    modules = {path.stem for path in Path(face.__file__).parent.glob("*.py")}

    assert modules.isdisjoint(face.__all__)


@faces
def test_an_unknown_name_is_an_attribute_error_and_modules_can_still_be_imported(face: ModuleType) -> None:
    """As with any package."""
    with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
        _ = face.Nonsense
    with pytest.raises(ImportError, match="cannot import name 'Nonsense'"):
        exec(f"from {face.__name__} import Nonsense")
    exec("from manager import meta, errors; from manager.testing import scripted")


def test_the_names_that_every_operator_needs_are_there() -> None:
    """A reader of the README finds them in one place."""
    assert set(manager.__all__) >= FIRST_NAMES


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import manager, manager.testing", {"aiohttp", "prometheus_client", "cryptography", "orjson", "yaml"}),
        ("from manager import Client, Finalizers, create_or_update", {"aiohttp", "prometheus_client"}),
        ("from manager import EventRecorder, with_owner_reference", {"aiohttp", "prometheus_client"}),
    ],
)
def test_a_name_costs_what_its_module_needs_and_no_more(statement: str, absent: set[str]) -> None:
    """aiohttp costs 0.3 s, which a command that never uses it must not pay."""
    code = f"import sys; {statement}; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()

    assert absent.isdisjoint(loaded)
    assert "kubernetes_asyncio" not in loaded
