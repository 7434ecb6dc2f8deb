"""Writes constraints/*.txt: the exact versions of everything in this environment, from its own metadata.

In: an environment in which the project runs and its tests pass. Out: ``constraints/cpu.txt``, the complete closure
of the project with its CPU engine, to be installed with ``pip install --no-deps -r``; and ``constraints/dev.txt``,
what the development tools add. Plain versions: pip refuses a local project under hashes, and a lock file would
record the address of whatever index it was made with.

Left out on purpose, although the engine's metadata asks for them: torchvision, torchaudio and torchcodec (PyPI has
only CUDA builds, which break ``import transformers`` beside a CPU torch) and triton (1 GB, no CPU back end). torch
itself is installed first, from PyTorch's CPU index (see the Makefile).
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

_LEFT_OUT = {"torchvision", "torchaudio", "torchcodec", "triton", "torch", "setuptools", "kaito"}
_ROOT = Path(__file__).parent.parent


def closure(root: str, extras: set[str]) -> dict[str, str]:
    """Name to version of everything that ``root[extras]`` needs here, itself excluded."""
    found: dict[str, str] = {}
    seen: set[tuple[str, frozenset[str]]] = set()
    todo: list[tuple[str, frozenset[str]]] = [(canonicalize_name(root), frozenset(extras))]
    while todo:
        item = todo.pop()
        if item in seen:
            continue
        seen.add(item)
        name, wanted = item
        try:
            dist = distribution(name)
        except PackageNotFoundError:
            if name not in _LEFT_OUT:
                raise
            continue
        found[name] = dist.version
        for line in dist.requires or []:
            requirement = Requirement(line)
            marker = requirement.marker
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in wanted or {""}):
                todo.append((canonicalize_name(requirement.name), frozenset(requirement.extras)))
    return {name: version for name, version in sorted(found.items()) if name not in _LEFT_OUT}


def main() -> None:
    """Write both files."""
    run = closure("kaito", {"", "cpu"})
    dev = {name: version for name, version in closure("kaito", {"", "dev"}).items() if name not in run}
    folder = _ROOT / "constraints"
    folder.mkdir(exist_ok=True)
    for name, pins in (("cpu", run), ("dev", dev)):
        text = f"# Written by hack/lock.py. Install with: pip install --no-deps -r constraints/{name}.txt\n"
        text += "".join(f"{package}=={version}\n" for package, version in pins.items())
        (folder / f"{name}.txt").write_text(text)
        print(f"constraints/{name}.txt: {len(pins)} packages")


if __name__ == "__main__":
    main()
