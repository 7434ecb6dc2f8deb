"""How the stand-in behaves and misbehaves, declared in one file.

In: a YAML file, or the same as values. Out: for each request, the faults that apply to it. A fault is spent after
``times`` requests, so a script reads from top to bottom. Faults choose by verb, pool and size; nothing is random.
"""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from kaito.local.fakearm.answers import ANSWERS, Answer

Verb = Literal[
    "put",
    "get",
    "list",
    "delete",
    "poll",
    "create-operation",
    "delete-operation",
    "cluster",
    "usages",
    "skus",
    "permissions",
]


class InvalidRules(ValueError):
    """The file of rules cannot be used; the text says where it is wrong."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", populate_by_name=True)


class Fault(_Strict):
    """One misbehaviour.

    Attributes:
        verb: the request it is for (not "on", which YAML takes for a truth); ``create-operation`` and
            ``delete-operation`` end the accepted operation badly.
        pool, sku: shell patterns of what it is for.
        times: how many requests; 0 is every one.
        answer: short name of a known refusal (``answers.yaml``); code, message and status override parts of it.
        body: how the refusal is written: ARM wraps it in ``error``, AKS often does not.
        retry_after: header of the reply, in seconds.
        lose: ``request`` is never seen by the service, ``response`` is lost after the service has acted.
        delay: seconds before anything happens.
        outcome: how an operation ends.
    """

    verb: Verb
    pool: str = "*"
    sku: str = "*"
    times: int = Field(default=1, ge=0)
    answer: str = ""
    status: int = 0
    code: str = ""
    message: str = ""
    body: Literal["wrapped", "flat", "text", "empty"] = "wrapped"
    retry_after: int | None = None
    lose: Literal["", "request", "response"] = ""
    delay: float = Field(default=0.0, ge=0)
    outcome: Literal["Failed", "Canceled"] = "Failed"

    @model_validator(mode="after")
    def _known(self) -> Fault:
        if self.answer and self.answer not in ANSWERS:
            raise ValueError(f"answer {self.answer}: not one of {', '.join(sorted(ANSWERS))}")
        return self

    @property
    def refusal(self) -> Answer | None:
        """What is answered instead of acting; None when the request is served after all."""
        known = ANSWERS.get(self.answer)
        if known is None and not (self.status or self.code or self.message):
            return None
        base = known or Answer(500, "", "")
        return Answer(self.status or base.status, self.code or base.code, self.message or base.message)


class Throttle(_Strict):
    """A bucket of requests, as ARM has one for reading and one for writing: ``burst`` at once, refilled slowly."""

    burst: int = Field(ge=1)
    per_second: float = Field(gt=0)
    retry_after: int = 1


class Usage(_Strict):
    """One quota of vCPUs: of a family (``standardNCSv3Family``), of the region (``cores``), of spot machines."""

    used: int = Field(default=0, ge=0)
    limit: int = Field(ge=0)


class Rules(_Strict):
    """Everything that may be said about the stand-in's behaviour.

    Attributes:
        create_seconds, delete_seconds: how long operations take; None waits for ``FakeArm.finish``.
        max_operations: of one cluster at a time; one more is refused as "in progress". 0 is any number.
        retry_after: header of accepted operations and of their polls; 0 sends none.
        page_size: of lists; 0 is everything on one page.
        honours_if_none_match: whether a create-only PUT is refused where there is a pool.
        usages: quotas other than the generous usual one.
        withheld: sizes that the region does not give to this subscription.
        allowed: the actions that the caller's role allows; shell patterns as ARM writes them.
    """

    create_seconds: float | None = None
    delete_seconds: float | None = None
    max_operations: int = Field(default=0, ge=0)
    retry_after: int = Field(default=0, ge=0)
    page_size: int = Field(default=0, ge=0)
    reads: Throttle | None = None
    writes: Throttle | None = None
    honours_if_none_match: bool = True
    usages: dict[str, Usage] = Field(default_factory=dict)
    withheld: list[str] = Field(default_factory=list)
    allowed: list[str] = Field(default_factory=lambda: ["*"])
    faults: list[Fault] = Field(default_factory=list)

    @classmethod
    def load(cls, path: Path) -> Rules:
        """The rules of a file. Raises ``InvalidRules``."""
        try:
            content: Any = yaml.safe_load(path.read_text()) or {}
            return cls.model_validate(content)
        except (OSError, yaml.YAMLError, ValidationError) as error:
            raise InvalidRules(f"{path}: {error}") from error

    def take(self, verb: Verb, pool: str, sku: str) -> Iterator[Fault]:
        """The faults for one request, each counted as used."""
        for fault in list(self.faults):
            if fault.verb != verb or not fnmatchcase(pool, fault.pool) or not fnmatchcase(sku, fault.sku):
                continue
            if fault.times == 1:
                self.faults.remove(fault)
            elif fault.times > 1:
                fault.times -= 1
            yield fault
            if fault.refusal is not None or fault.lose:
                return  # one refusal for one request; the next fault is for the next request
