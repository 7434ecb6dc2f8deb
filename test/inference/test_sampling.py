"""generate_kwargs to sampling parameters, field by field."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from inference_server.protocol import InvalidRequest, Sampling
from inference_server.sampling import GenerateKwargs, to_sampling, unsupported


def mapped(prompt_tokens: int = 10, max_model_len: int = 1000, **kwargs) -> Sampling:
    return to_sampling(GenerateKwargs(**kwargs), prompt_tokens, max_model_len)


def test_the_defaults_are_the_seed_eras():
    """Nothing set means: sample at temperature 1 from the best 10, 200 tokens with the prompt."""
    assert mapped() == Sampling(max_tokens=190, temperature=1.0, top_k=10, top_p=1.0, repetition_penalty=1.0)


def test_null_is_the_default():
    """A null in any field is as if the field were absent."""
    assert mapped(**dict.fromkeys(GenerateKwargs.model_fields)) == mapped()


@pytest.mark.parametrize(
    ("kwargs", "field", "value"),
    [
        ({"max_length": 60}, "max_tokens", 50),
        ({"max_new_tokens": 7}, "max_tokens", 7),
        ({"max_new_tokens": 7, "max_length": 1}, "max_tokens", 7),
        ({"max_length": 5000}, "max_tokens", 990),
        ({"min_length": 30}, "min_tokens", 20),
        ({"min_length": 5}, "min_tokens", 0),
        ({"min_new_tokens": 4}, "min_tokens", 4),
        ({"temperature": 0.3}, "temperature", 0.3),
        ({"temperature": 0}, "temperature", 0.0),
        ({"top_k": 0}, "top_k", 0),
        ({"top_k": 50}, "top_k", 50),
        ({"top_p": 0.9}, "top_p", 0.9),
        ({"min_p": 0.1}, "min_p", 0.1),
        ({"repetition_penalty": 1.2}, "repetition_penalty", 1.2),
        ({"presence_penalty": 0.5}, "presence_penalty", 0.5),
        ({"frequency_penalty": 0.5}, "frequency_penalty", 0.5),
        ({"seed": 42}, "seed", 42),
        ({"stop": "END"}, "stop", ("END",)),
        ({"stop": ["a", ""], "stop_strings": "b"}, "stop", ("a", "b")),
        ({"eos_token_id": 3}, "stop_token_ids", (3,)),
        ({"eos_token_id": [3, 4]}, "ignore_eos", True),
    ],
)
def test_each_field_reaches_the_engine(kwargs, field, value):
    """Every supported field lands in its sampling parameter."""
    assert getattr(mapped(**kwargs), field) == value


def test_do_sample_false_is_greedy():
    """Without sampling the temperature is 0 and the filters are off."""
    sampling = mapped(do_sample=False, temperature=0.7, top_k=5, seed=1)
    assert (sampling.temperature, sampling.top_k, sampling.seed) == (0.0, 0, 1)


@pytest.mark.parametrize(
    ("prompt_tokens", "kwargs", "words"),
    [
        (1000, {}, "shorter prompt"),
        (200, {}, "raise generate_kwargs.max_length"),
        (10, {"max_length": 10}, "max_new_tokens"),
        (10, {"min_length": 100, "max_length": 50}, "lower min_length"),
    ],
)
def test_no_room_for_an_answer_names_the_limit(prompt_tokens, kwargs, words):
    """Limits that contradict each other are an error that says which to change."""
    with pytest.raises(InvalidRequest, match=words):
        mapped(prompt_tokens, **kwargs)


@pytest.mark.parametrize(
    "kwargs", [{"temperature": -1}, {"top_p": 0}, {"top_k": -1}, {"seed": 2**63}, {"max_length": 0}]
)
def test_values_outside_their_range_do_not_validate(kwargs):
    """A value that no engine takes is found before the engine sees it."""
    with pytest.raises(ValidationError):
        GenerateKwargs(**kwargs)


def test_only_what_changes_something_is_called_unsupported():
    """Neutral values of unsupported fields are not worth a warning."""
    quiet = GenerateKwargs(num_beams=1, early_stopping=False, typical_p=1.0, use_cache=True, pad_token_id=0)
    assert unsupported(quiet) == []
    loud = GenerateKwargs(
        num_beams=3, early_stopping=True, typical_p=0.5, diversity_penalty=0.2, nonsense=None, foo=1
    )
    assert unsupported(loud) == ["diversity_penalty", "early_stopping", "foo", "num_beams", "typical_p"]


@given(
    prompt=st.integers(1, 3000),
    limit=st.integers(1, 2048),
    length=st.none() | st.integers(1, 4000),
    new=st.none() | st.integers(1, 4000),
    least=st.none() | st.integers(0, 4000),
)
def test_what_is_accepted_always_fits_the_model(prompt, limit, length, new, least):
    """Whatever is asked for, an accepted request has room for a token and fits the model."""
    kwargs = GenerateKwargs(max_length=length, max_new_tokens=new, min_length=least)
    try:
        sampling = to_sampling(kwargs, prompt, limit)
    except InvalidRequest:
        return
    assert 1 <= sampling.max_tokens <= limit - prompt
    assert 0 <= sampling.min_tokens <= sampling.max_tokens
