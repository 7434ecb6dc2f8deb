"""From a dataset's rows to tokens: which columns are taken, and what of an example is learnt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from inference_server.tuning.columns import BadRow, Example, Layout, choose_layout, example_of
from inference_server.tuning.config import DatasetConfig
from inference_server.tuning.encode import IGNORED, Encoding
from inference_server.tuning.errors import TuneError


@pytest.mark.parametrize(
    ("columns", "settings", "layout"),
    [
        (["id", "messages"], {}, Layout(messages="messages")),
        (["Conversations"], {}, Layout(messages="Conversations")),
        (["prompt", "completion"], {}, Layout(prompt="prompt", response="completion")),
        (["context", "response"], {}, Layout(prompt="context", response="response")),
        (
            ["instruction", "input", "output"],
            {},
            Layout(prompt="instruction", response="output", more="input"),
        ),
        (["instruction", "context", "response"], {"context_column": "instruction"}, None),
        (["question", "answer", "text"], {}, Layout(prompt="question", response="answer")),
        (["text"], {}, Layout(response="text")),
        (["messages", "body"], {"response_column": "body"}, Layout(response="body")),
        (["q", "a"], {"context_column": "q", "response_column": "a"}, Layout(prompt="q", response="a")),
        (["chat", "text"], {"messages_column": "chat"}, Layout(messages="chat")),
    ],
)
def test_columns_are_found_or_named(columns: list[str], settings: dict[str, str], layout: Layout | None) -> None:
    """The configuration's columns count; without them those that public datasets use."""
    found = choose_layout(columns, DatasetConfig(**settings))

    assert found == (layout or Layout(prompt="instruction", response="response"))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({}, "the dataset has alpha, beta"),
        ({"messages_column": "chat"}, "messages_column is 'chat'"),
        ({"context_column": "alpha"}, "response_column is 'response'"),
    ],
)
def test_a_dataset_that_does_not_fit_shows_its_columns(settings: dict[str, str], says: str) -> None:
    """The error has the columns that there are, and what to set."""
    with pytest.raises(TuneError, match=says) as caught:
        choose_layout(["alpha", "beta"], DatasetConfig(**settings))

    assert "alpha, beta" in caught.value.message
    assert "column" in caught.value.next_step


def test_rows_become_examples() -> None:
    """Roles of other tools are understood, what an instruction is about belongs to it, and blanks are nothing."""
    shared = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]
    alpaca = {"instruction": "Translate.", "input": "Hallo", "output": "Hello"}

    chat = example_of({"conversations": shared}, Layout(messages="conversations"))
    pair = example_of(alpaca, Layout(prompt="instruction", response="output", more="input"))

    assert chat == Example(({"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}))
    assert pair == Example(prompt="Translate.\n\nHallo", text="Hello")
    assert example_of({"text": "  "}, Layout(response="text")) is None
    assert example_of({"messages": [{"role": "user", "content": "a"}]}, Layout(messages="messages")) is None


@pytest.mark.parametrize("value", ["text", [1], [{"role": "user"}], [{"role": 1, "content": "a"}], {"a": 1}])
def test_a_conversation_of_another_shape_is_refused(value: Any) -> None:
    """Only lists of {role, content} are conversations."""
    with pytest.raises(BadRow):
        example_of({"messages": value}, Layout(messages="messages"))


# ------------------------------------------------------------------ tokens (transformers is heavy to import)


@pytest.fixture(scope="module")
def tokenizer(model_path: Path) -> Any:
    """The small model's."""
    import transformers

    return transformers.AutoTokenizer.from_pretrained(model_path)


def learnt(tokenizer: Any, encoded: Any) -> str:
    """The text that is learnt, with a bar where something is left out."""
    pieces: list[str] = []
    previous = False
    for token, label in zip(encoded.ids, encoded.labels, strict=True):
        if label != IGNORED:
            assert label == token
            pieces += ["|"] * (not previous and bool(pieces)) + [tokenizer.decode([token])]
        previous = label != IGNORED
    return "".join(pieces)


def turns(*contents: str) -> tuple[dict[str, str], ...]:
    """A conversation, the user first."""
    return tuple({"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(contents))


@pytest.mark.engine
def test_every_turn_of_the_assistant_is_learnt_and_nothing_else(tokenizer: Any) -> None:
    """Both answers with the token that ends each; no question, and not the line break after a turn."""
    encoded = Encoding(tokenizer, 512)(Example(turns("What?", "This.", "And?", "That.")))

    assert learnt(tokenizer, encoded) == "This.<|end|>|That.<|end|>"
    assert tokenizer.decode(encoded.ids).startswith("<|user|>\nWhat?<|end|>\n<|assistant|>\nThis.<|end|>")


@pytest.mark.engine
def test_a_pair_is_a_conversation_where_the_model_has_a_template(tokenizer: Any) -> None:
    """/chat renders a prompt through the template, so training does, unless use_chat_template is false."""
    pair = Example(prompt="What?", text="This.")

    chat = Encoding(tokenizer, 512)(pair)
    plain = Encoding(tokenizer, 512, chat=False)(pair)

    assert chat == Encoding(tokenizer, 512)(Example(turns("What?", "This.")))
    assert tokenizer.decode(plain.ids) == "What?This.<|end|>"
    assert learnt(tokenizer, plain) == "This.<|end|>"


@pytest.mark.engine
def test_a_text_is_learnt_as_a_whole(tokenizer: Any) -> None:
    """A plain text is learnt from its second token to its end; so is everything without answers_only."""
    text = Encoding(tokenizer, 512)(Example(text="All of it."))
    everything = Encoding(tokenizer, 512, answers_only=False)(Example(turns("What?", "This.")))

    assert text.labels == text.ids
    assert tokenizer.decode(text.ids) == "All of it.<|end|>"
    assert everything.labels == everything.ids


@pytest.mark.engine
def test_a_long_example_is_cut_and_said_to_be(tokenizer: Any) -> None:
    """What is over the limit is left out; an example whose answer is all over it learns nothing."""
    encoded = Encoding(tokenizer, 8)(Example(turns("What is this long question about?", "This.")))

    assert (len(encoded.ids), encoded.cut, encoded.learns) == (8, True, False)


@pytest.mark.engine
def test_a_template_that_rewrites_the_past_teaches_the_last_turn(model_path: Path) -> None:
    """Where an earlier turn is rendered differently later, the last answer alone is learnt."""
    import transformers

    forgetful: Any = transformers.AutoTokenizer.from_pretrained(model_path)
    forgetful.chat_template = (
        "{% for m in messages %}{% if loop.last or m.role == 'user' %}"
        "{{ '<|' + m.role + '|>' + m.content + '<|end|>' }}"
        "{% else %}{{ '<|' + m.role + '|>...<|end|>' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )

    encoded = Encoding(forgetful, 512)(Example(turns("What?", "This.", "And?", "That.")))

    assert learnt(forgetful, encoded) == "That.<|end|>"


@pytest.mark.engine
def test_a_conversation_that_the_template_refuses_is_an_error(model_path: Path) -> None:
    """What a template raises becomes an error with its words."""
    import transformers

    strict: Any = transformers.AutoTokenizer.from_pretrained(model_path)
    strict.chat_template = "{{ raise_exception('no system role') }}"

    with pytest.raises(ValueError, match="no system role"):
        Encoding(strict, 512)(Example(turns("What?", "This.")))
