"""The Dockerfiles, as far as reading goes: no container engine builds them here."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = [path for path in sorted((ROOT / "config" / "docker").iterdir()) if path.suffix != ".dockerignore"]
INSTRUCTIONS = {"FROM", "COPY", "WORKDIR", "RUN", "ENV", "USER", "EXPOSE", "ENTRYPOINT", "CMD"}


def instructions(path: Path) -> list[tuple[str, str]]:
    """``(instruction, arguments)`` with continued lines joined and comments dropped."""
    lines = [line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n", " ", "\n".join(lines))
    return [tuple(line.split(None, 1)) for line in joined.splitlines() if line.strip()]  # type: ignore[misc]


def test_there_are_three() -> None:
    """One image for the operator, one for the model server on GPUs, one for it where there is none."""
    assert [path.name for path in FILES] == [
        "Dockerfile.inference",
        "Dockerfile.inference-cpu",
        "Dockerfile.operator",
    ]


@pytest.mark.parametrize("name", ["operator", "inference"])
def test_dockerfile(name: str) -> None:
    """Non-root by number, safe path on, working directory outside the code, our command as entry point."""
    found = instructions(ROOT / "config" / "docker" / f"Dockerfile.{name}")
    values = dict(found)  # the last of each: those of the final stage

    assert {key for key, _ in found} <= INSTRUCTIONS
    assert values["USER"] == "65532:65532"
    assert "PYTHONSAFEPATH=1" in values["ENV"]
    assert not values["WORKDIR"].startswith(("/opt/kaito", "/src"))
    assert values["ENTRYPOINT"] == '["kaito"]'


@pytest.mark.parametrize("name", ["operator", "inference"])
def test_the_build_context_holds_what_the_wheel_needs(name: str) -> None:
    """The ignore file beside a Dockerfile lets every package and what pyproject.toml names through."""
    let_in = (ROOT / "config" / "docker" / f"Dockerfile.{name}.dockerignore").read_text().split("\n")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]

    for needed in (
        *packages,
        "pyproject.toml",
        project["project"]["readme"],
        *project["project"]["license-files"],
    ):
        assert f"!{needed}" in let_in
