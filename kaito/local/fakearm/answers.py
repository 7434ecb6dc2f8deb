"""What Azure says when it refuses, by a short name: read from ``answers.yaml``.

The texts are inputs of the provisioner's classification and of rehearsals, so they are data and nobody composes
them.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from typing import Final

import yaml


@dataclass(frozen=True, slots=True)
class Answer:
    """One refusal. ``status`` is that of an HTTP reply; inside a failed operation only code and message count."""

    status: int
    code: str
    message: str


_FILE = resources.files("kaito.local.fakearm") / "answers.yaml"
ANSWERS: Final[dict[str, Answer]] = {
    name: Answer(**fields) for name, fields in yaml.safe_load(_FILE.read_text()).items()
}
