"""The container images say what is true of this repository; they are not built here."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "config" / "docker"
NAMES = ["Dockerfile.inference", "Dockerfile.inference-cpu", "Dockerfile.operator"]


def stages(name: str) -> list[str]:
    text = (DOCKER / name).read_text()
    return ["FROM " + part for part in re.split(r"^FROM ", text, flags=re.M)[1:]]


@pytest.mark.parametrize("name", NAMES)
def test_an_image_is_made_in_two_stages_and_runs_as_nobody_in_particular(name):
    """What builds stays behind, the base is a fixed release, and the program runs without root as `kaito`."""
    build, final = stages(name)
    assert build.startswith("FROM python:3.12-slim-bookworm AS build")
    assert final.startswith("FROM python:3.12-slim-bookworm\n")
    assert "COPY --from=build /opt/kaito /opt/kaito" in final
    assert "COPY . " not in final
    assert "USER 65532:65532" in final
    assert 'ENTRYPOINT ["kaito"]' in final
    assert "PYTHONSAFEPATH=1" in final


@pytest.mark.parametrize("name", NAMES)
def test_what_an_image_is_made_of_is_let_in(name):
    """The ignore file lets in every package of the wheel and every file that the build step names."""
    allowed = {
        line.removeprefix("!").strip()
        for line in (DOCKER / f"{name}.dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    packages = re.search(r"^packages = \[(.*)\]$", (ROOT / "pyproject.toml").read_text(), re.M)
    assert packages
    named = set(re.findall(r'"(\w+)"', packages[1])) | {"pyproject.toml", "README.md", "LICENSE"}
    named |= {path.split("/")[0] for path in re.findall(r"\bconstraints/\S+", stages(name)[0])}
    assert named <= allowed
    assert all((ROOT / path).exists() for path in allowed)


def test_the_cpu_image_installs_what_make_install_installs():
    """Both take the same torch, the same pins, and nobody's dependencies."""
    image = stages("Dockerfile.inference-cpu")[0]
    makefile = (ROOT / "Makefile").read_text()
    torch = re.search(r"^TORCH\s*:= (\S+)$", makefile, re.M)
    index = re.search(r"^TORCH_CPU\s*\?= (\S+)$", makefile, re.M)
    assert torch
    assert index
    assert f"{torch[1]}+cpu" in image
    assert f"ARG TORCH_CPU={index[1]}" in image
    assert image.count("--no-deps") == makefile.count("--no-deps") - 1  # one of the Makefile's is for development
    assert (ROOT / "constraints" / "cpu.txt").exists()


def test_the_gpu_image_has_a_compiler_for_the_engines_kernels():
    """Triton compiles at start-up; the engine's extra is the one with the CUDA build."""
    build, final = stages("Dockerfile.inference")
    assert '".[gpu]"' in build
    assert "gcc" in final
    assert 'gpu = ["vllm==' in (ROOT / "pyproject.toml").read_text()
