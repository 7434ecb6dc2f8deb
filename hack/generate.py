"""Writes, or checks, every generated file: CRDs, pages of docs/, the doctor's needs; with ``--data`` catalogues.

In: the pydantic models of ``api``, its sizing, and, for the catalogues, a folder of collected upstream figures.
Out: ``config/crd/*.yaml``, ``config/nodeclaim/*.yaml``, ``docs/sizing.md``, ``docs/reasons.md``,
``api/catalog/*.json``, and ``kaito/doctor/needs.json`` from the roles in ``config/rbac``. ``--check`` writes
nothing, lists what is stale and exits 1; ``make check`` runs it. Nothing else writes these files.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # run from a bare checkout: the packages lie beside hack/


def generated(data: Path | None) -> Iterator[tuple[Path, str]]:
    """``(path, text)`` of every file to generate."""
    if data is not None:
        from hack.catalogs import documents

        for name, text in documents(data):
            yield ROOT / "api" / "catalog" / name, text
    from api.crds import render_files

    for name, text in render_files():
        yield ROOT / "config" / name, text
    from hack.sizing_doc import document

    yield ROOT / "docs" / "sizing.md", document()
    from hack.reasons_doc import document as reasons

    yield ROOT / "docs" / "reasons.md", reasons()
    yield ROOT / "kaito" / "doctor" / "needs.json", needs()


def needs() -> str:
    """What the service accounts of ``config/rbac`` may do, for `kaito doctor` to ask."""
    import yaml

    from kaito.doctor.needs import needs_of

    files = sorted((ROOT / "config" / "rbac").glob("*.yaml"))
    objects = [item for path in files for item in yaml.safe_load_all(path.read_text("utf-8")) if item]
    plain = [
        {key: value for key, value in asdict(need).items() if value or key == "group"}
        for need in needs_of(objects)
    ]
    return "[\n" + ",\n".join(json.dumps(item) for item in plain) + "\n]\n"


def main() -> int:
    """The program. Returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when a file is stale")
    parser.add_argument("--data", type=Path, help="folder with kaito_presets.json and azure_skus.json")
    args = parser.parse_args()
    stale = [
        (path, text) for path, text in generated(args.data) if not path.exists() or path.read_text("utf-8") != text
    ]
    for path, text in stale:
        if args.check:
            print(f"stale: {path.relative_to(ROOT)}")
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            print(f"wrote {path.relative_to(ROOT)}")
    if args.check and stale:
        print("run: python hack/generate.py")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
