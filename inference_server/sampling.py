"""Translates `generate_kwargs`, which speak the language of transformers' generate(), into `Sampling`.

In: the validated fields, the length of the prompt in tokens and the longest sequence that the model takes. Out:
`Sampling`, and the names of fields that this engine cannot honour. Pure. A field is never dropped silently: what
is asked for and not done is named, and what leaves no room for an answer is an error naming the limit to raise.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from inference_server.protocol import InvalidRequest, Sampling

DEFAULT_MAX_LENGTH = 200  # prompt and answer together; the seed era's default
_INT64 = 2**63

Strings = str | list[str]
TokenIds = int | list[int]


class GenerateKwargs(BaseModel):
    """The fields with a meaning here, at the seed era's defaults; null means the default. Others pass through."""

    model_config = ConfigDict(extra="allow")

    max_length: Annotated[int, Field(ge=1, lt=_INT64)] | None = None
    max_new_tokens: Annotated[int, Field(ge=1, lt=_INT64)] | None = None
    min_length: Annotated[int, Field(ge=0, lt=_INT64)] | None = None
    min_new_tokens: Annotated[int, Field(ge=0, lt=_INT64)] | None = None
    do_sample: bool | None = None
    temperature: Annotated[float, Field(ge=0, le=100)] | None = None
    top_k: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=100)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    seed: Annotated[int, Field(ge=0, lt=_INT64)] | None = None
    stop: Strings | None = None
    stop_strings: Strings | None = None
    eos_token_id: TokenIds | None = None
    pad_token_id: int | None = None
    early_stopping: bool | str | None = None
    num_beams: int | None = None
    num_return_sequences: int | None = None
    typical_p: float | None = None


# Fields of transformers that change nothing at these values, so that naming them would only be noise.
_HARMLESS: dict[str, tuple[Any, ...]] = {
    "early_stopping": (False,),  # concerns beams only
    "num_beams": (1,),
    "num_return_sequences": (1,),
    "typical_p": (1, 1.0),
    "length_penalty": (1, 1.0),
    "no_repeat_ngram_size": (0,),
    "num_beam_groups": (1,),
    "diversity_penalty": (0, 0.0),
    "use_cache": (True,),
    "return_full_text": (True,),
}


def unsupported(kwargs: GenerateKwargs) -> list[str]:
    """Names of fields that were set to something this engine does not do, in the order they were sent."""
    names = []
    supported = set(GenerateKwargs.model_fields) - set(_HARMLESS)
    for name in [*kwargs.model_fields_set, *(kwargs.model_extra or {})]:
        value = getattr(kwargs, name)
        if name in supported or name in names or value is None or value in _HARMLESS.get(name, ()):
            continue
        names.append(name)
    return sorted(names)


def to_sampling(kwargs: GenerateKwargs, prompt_tokens: int, max_model_len: int) -> Sampling:
    """Sampling parameters for a prompt of this many tokens. Raises InvalidRequest if no token could follow."""
    room = max_model_len - prompt_tokens
    if room < 1:
        raise InvalidRequest(
            f"The prompt has {prompt_tokens} tokens and the model takes {max_model_len} including the answer; "
            "send a shorter prompt"
        )
    if kwargs.max_new_tokens is not None:
        wanted = kwargs.max_new_tokens
    else:
        limit = kwargs.max_length if kwargs.max_length is not None else DEFAULT_MAX_LENGTH
        wanted = limit - prompt_tokens
        if wanted < 1:
            raise InvalidRequest(
                f"max_length is {limit} and the prompt alone has {prompt_tokens} tokens; "
                "raise generate_kwargs.max_length or set generate_kwargs.max_new_tokens"
            )
    max_tokens = min(wanted, room)
    min_tokens = max((kwargs.min_length or 0) - prompt_tokens, kwargs.min_new_tokens or 0, 0)
    if min_tokens > max_tokens:
        raise InvalidRequest(
            f"at least {min_tokens} new tokens are asked for, but at most {max_tokens} fit; "
            "lower min_length or raise max_length"
        )
    common = Sampling(
        max_tokens=max_tokens,
        min_tokens=min_tokens,
        temperature=0.0,
        repetition_penalty=_or(kwargs.repetition_penalty, 1.0),
        presence_penalty=_or(kwargs.presence_penalty, 0.0),
        frequency_penalty=_or(kwargs.frequency_penalty, 0.0),
        seed=kwargs.seed,
        stop=_strings(kwargs.stop) + _strings(kwargs.stop_strings),
        # An explicit end token replaces the model's own, as it does in transformers.
        stop_token_ids=_ids(kwargs.eos_token_id),
        ignore_eos=kwargs.eos_token_id is not None,
    )
    if kwargs.do_sample is False:
        return common
    return replace(
        common,
        temperature=_or(kwargs.temperature, 1.0),
        top_k=kwargs.top_k if kwargs.top_k is not None else 10,
        top_p=_or(kwargs.top_p, 1.0),
        min_p=_or(kwargs.min_p, 0.0),
    )


def _or(value: float | None, default: float) -> float:
    return default if value is None else value


def _strings(value: Strings | None) -> tuple[str, ...]:
    if value is None:
        return ()
    return tuple(part for part in ([value] if isinstance(value, str) else value) if part)


def _ids(value: TokenIds | None) -> tuple[int, ...]:
    if value is None:
        return ()
    return (value,) if isinstance(value, int) else tuple(value)
