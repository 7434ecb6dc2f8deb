"""An example as token ids and labels: what of it is learnt, and what is only read.

In: an ``Example``, a tokenizer. Out: ids and labels (-100: not learnt). Of a conversation every turn of the
assistant is learnt, with the token that ends it, and nothing that the user or the system says: learning the
questions too damages the answers. Where a turn begins is found by rendering the template with and without it,
which works for every template whose rendering only grows; for one that does not, the last turn alone is learnt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from inference_server.tuning.columns import Example

IGNORED: Final = -100


class Tokenizer(Protocol):
    """What is used of a transformers tokenizer."""

    eos_token_id: int | None
    chat_template: Any

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Token ids of a text."""
        ...

    def apply_chat_template(self, conversation: list[dict[str, str]], **kwargs: Any) -> Any:
        """A conversation as the model expects it."""
        ...


@dataclass(frozen=True, slots=True)
class Encoded:
    """Token ids and, for each, what is to be predicted there or -100. ``cut``: it was longer than allowed."""

    ids: list[int]
    labels: list[int]
    cut: bool = False

    @property
    def learns(self) -> bool:
        """Whether any token of it is learnt. The first one never is: nothing precedes it."""
        return any(label != IGNORED for label in self.labels[1:])


@dataclass(frozen=True, slots=True)
class Encoding:
    """How examples become tokens.

    Attributes:
        longest: tokens that are kept of each.
        answers_only: whether prompts and the user's turns are not learnt.
        chat: whether a prompt and its completion are rendered as a conversation.
    """

    tokenizer: Tokenizer
    longest: int
    answers_only: bool = True
    chat: bool = True

    def __call__(self, example: Example) -> Encoded:
        """The example's tokens. Raises ValueError where the template refuses the conversation."""
        messages: Sequence[Mapping[str, str]] = example.messages
        if not messages and example.prompt is not None and self.chat and self.tokenizer.chat_template:
            messages = _as_messages(example)
        ids, labels = self._conversation(messages) if messages else self._plain(example)
        if not self.answers_only:
            labels = list(ids)
        return Encoded(ids[: self.longest], labels[: self.longest], len(ids) > self.longest)

    def _plain(self, example: Example) -> tuple[list[int], list[int]]:
        before = self.tokenizer.encode(example.prompt) if example.prompt else []
        after = self.tokenizer.encode(example.text, add_special_tokens=not before)
        if self.tokenizer.eos_token_id is not None and after[-1:] != [self.tokenizer.eos_token_id]:
            after = [*after, self.tokenizer.eos_token_id]
        return before + after, [IGNORED] * len(before) + after

    def _conversation(self, messages: Sequence[Mapping[str, str]]) -> tuple[list[int], list[int]]:
        turns = [index for index, item in enumerate(messages) if item["role"] == "assistant" and item["content"]]
        whole = self._ids(messages)
        spans = [span for span in (self._span(messages, index, whole) for index in turns) if span is not None]
        if len(spans) < len(turns):  # the template rewrites what came before: learn the last turn, rendered alone
            messages = messages[: turns[-1] + 1]
            whole = self._ids(messages)
            begin = _common(self._ids(messages[:-1], prompt=True), whole)
            spans = [(begin, len(whole))]
        labels = [IGNORED] * len(whole)
        for begin, end in spans:
            labels[begin:end] = whole[begin:end]
        return whole, labels

    def _span(self, messages: Sequence[Mapping[str, str]], index: int, whole: list[int]) -> tuple[int, int] | None:
        """Where the turn's own tokens begin and end in the whole; None where the rendering does not just grow."""
        before = self._ids(messages[:index], prompt=True)
        until = self._ids(messages[: index + 1])
        if whole[: len(before)] != before or whole[: len(until)] != until:
            return None
        return len(before), _end_of_turn(until, len(before), self.tokenizer.eos_token_id)

    def _ids(self, messages: Sequence[Mapping[str, str]], *, prompt: bool = False) -> list[int]:
        if not messages:
            return []
        try:
            text = self.tokenizer.apply_chat_template(
                [dict(item) for item in messages], tokenize=False, add_generation_prompt=prompt
            )
        except Exception as error:  # jinja's, of any kind: the template decides what a conversation may be
            raise ValueError(f"the chat template refuses a conversation: {error}") from error
        return self.tokenizer.encode(text, add_special_tokens=False)


def _as_messages(example: Example) -> Sequence[Mapping[str, str]]:
    return ({"role": "user", "content": example.prompt or ""}, {"role": "assistant", "content": example.text})


def _common(left: list[int], right: list[int]) -> int:
    count = 0
    for one, other in zip(left, right, strict=False):
        if one != other:
            break
        count += 1
    return count


def _end_of_turn(ids: list[int], begin: int, eos: int | None) -> int:
    """The turn with the token that ends it, without what the template writes after that (a newline)."""
    for index in range(len(ids) - 1, begin - 1, -1):
        if ids[index] == eos:
            return index + 1
    return len(ids)
