"""Which parsers and engine flags a model gets, by its name and its architecture.

In: a model's name or Hugging Face id, and the class named in its config.json. Out: parser names as vLLM knows
them. The tables are upstream's (``rules.json``, generated); the look-up is ours: the longest prefix of the short
name wins, then the architecture. Three of upstream's slips are mended here, each where it is mended; with
``upstream=True`` the answers are upstream's, slips included.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any, Final, Self

# Upstream's table says "phi4-mini", which no model is called.
_SPELLING: Final = {"phi-4-mini": "phi4_mini_json"}
_DEEPSEEK: Final = ("deepseek-r1", "deepseek-v3", "deepseek-v4")


def short_name(name: str) -> str:
    """The last part of a Hugging Face id, in lower case: what rules and aliases go by."""
    return name.rsplit("/", 1)[-1].strip().lower()


@dataclass(frozen=True, slots=True)
class Rules:
    """The look-up tables. ``*_by_prefix`` go by the beginning of the short name."""

    tool_by_prefix: Mapping[str, str]
    tool_by_architecture: Mapping[str, str]
    reasoning_by_prefix: Mapping[str, str]
    reasoning_by_architecture: Mapping[str, str]
    not_reasoning: frozenset[str]
    chat_template_by_prefix: Mapping[str, str]
    tokenizer_by_prefix: Mapping[str, str]
    kv_dtype_by_prefix: Mapping[str, str]
    gdn_by_prefix: Mapping[str, str]
    expert_parallel: frozenset[str]
    no_autotune: frozenset[str]

    @classmethod
    def from_obj(cls, obj: Mapping[str, Any]) -> Self:
        return cls(
            tool_by_prefix=obj["toolCallParserModeNamePrefixMap"],
            tool_by_architecture=obj["toolCallParserArchMap"],
            reasoning_by_prefix=obj["reasoningParserModeNamePrefixMap"],
            reasoning_by_architecture=obj["reasoningParserArchMap"],
            not_reasoning=frozenset(obj["nonReasoningModels"]),
            chat_template_by_prefix=obj["chatTemplatePrefixMap"],
            tokenizer_by_prefix=obj["tokenizerModePrefixMap"],
            kv_dtype_by_prefix=obj["vllmKVCacheDtypePrefixMap"],
            gdn_by_prefix=obj["vllmGdnPrefillBackendPrefixMap"],
            expert_parallel=frozenset(obj["vllmExpertParallelEnabled"]),
            no_autotune=frozenset(obj["vllmDisableFlashInferAutotunePrefixMap"]),
        )

    def tool_parser(self, name: str, architecture: str, *, upstream: bool = False) -> str | None:
        """The parser of tool calls, None where the model has none that we know."""
        short = short_name(name)
        if not upstream:
            if mended := _by_prefix(_SPELLING, short):
                return mended
            if distilled(name, architecture):
                return None
        return _by_prefix(self.tool_by_prefix, short) or self.tool_by_architecture.get(architecture)

    def reasoning_parser(self, name: str, architecture: str) -> str | None:
        """The parser of the model's thinking, None for a model that does not think aloud."""
        short = short_name(name)
        if short in self.not_reasoning:
            return None
        return _by_prefix(self.reasoning_by_prefix, short) or self.reasoning_by_architecture.get(architecture)

    def run_params(
        self, name: str, architecture: str, *, quantized: bool, mistral_format: bool, upstream: bool = False
    ) -> dict[str, str]:
        """The engine's parameters for a model, as option names of vLLM; a flag has an empty value."""
        short = short_name(name)
        plain = not upstream and distilled(name, architecture)
        form = "mistral" if mistral_format else "auto"
        tokenizer = None if plain else _by_prefix(self.tokenizer_by_prefix, short)
        params = {"load_format": form, "config_format": form, "tokenizer_mode": tokenizer or form}
        params |= {"trust-remote-code": "", "dtype": "auto" if quantized else "bfloat16"}
        if dtype := _by_prefix(self.kv_dtype_by_prefix, short):
            params["kv-cache-dtype"] = dtype
        if backend := _by_prefix(self.gdn_by_prefix, short):
            params["gdn-prefill-backend"] = backend
        if any(short.startswith(prefix) for prefix in self.expert_parallel):
            params["enable-expert-parallel"] = ""
        if any(short.startswith(prefix) for prefix in self.no_autotune):
            params["kernel-config.enable_flashinfer_autotune"] = "False"
        if tool := self.tool_parser(name, architecture, upstream=upstream):
            params |= {"tool-call-parser": tool, "enable-auto-tool-choice": ""}
        template = None if plain else _by_prefix(self.chat_template_by_prefix, short)
        if template:
            params["chat-template"] = f"/workspace/chat_templates/{template}"
        if reasoning := self.reasoning_parser(name, architecture):
            params["reasoning-parser"] = reasoning
        return params


def distilled(name: str, architecture: str) -> bool:
    """Whether a model bears DeepSeek's name and is another family's network, with that family's tokens.

    Upstream gives the distilled Llama and Qwen models the tool parser, chat template and tokenizer of DeepSeek V3,
    whose special tokens their vocabularies lack.
    """
    return short_name(name).startswith(_DEEPSEEK) and not architecture.startswith("Deepseek")


@lru_cache(maxsize=1)
def rules() -> Rules:
    """The packaged tables."""
    return Rules.from_obj(json.loads((files("api.catalog") / "rules.json").read_text(encoding="utf-8")))


def _by_prefix(table: Mapping[str, str], short: str) -> str | None:
    found = [prefix for prefix in table if short.startswith(prefix)]
    return table[max(found, key=len)] if found else None
