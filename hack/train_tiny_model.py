"""Makes the stand-in weights of kaito/local/models/tiny-phi3 from tiny_model_corpus.txt.

In: the corpus beside this file. Out: a folder with a Phi-3-architecture model of about two million parameters
(bfloat16 safetensors under 5 MB), its own byte-level BPE tokenizer, the chat template and the generation defaults,
in the layout of a model hub repository, so that any engine loads it like real weights.
Seeded: the same machine and library versions give the same file. Takes one to two minutes on two cores.
It memorises the corpus and knows nothing else; that is its purpose. It must never be presented as a real model.

Usage: python hack/train_tiny_model.py [--out FOLDER] [--steps N] [--seed N]
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# The stubs of transformers call half of its own use an error.
Model = Any
Tokenizer = Any

HERE = Path(__file__).resolve().parent
CORPUS = HERE / "tiny_model_corpus.txt"
OUT = HERE.parent / "kaito" / "local" / "models" / "tiny-phi3"

# Phi-3's own names; the numbers follow from their order here.
SPECIAL_TOKENS = ["<|endoftext|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>", "<unk>"]
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>\n' + message['content'] + '<|end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
VOCABULARY = 1024
POSITIONS = 2048
# Head size 80 is deliberate: vLLM's CPU attention uses its AMX kernels only for multiples of 32, so the
# demonstration does not depend on the permission that inference_server/vllm_plugin.py asks the kernel for.
HIDDEN, LAYERS, HEADS, FEED_FORWARD = 240, 3, 3, 512
BATCH = 32
PEAK_RATE = 2.5e-3
LONGEST = 224  # tokens of one training conversation


@dataclass(frozen=True)
class Entry:
    """Several ways to ask and the one answer."""

    questions: tuple[str, ...]
    answer: str


def read_corpus(path: Path) -> list[Entry]:
    """Entries in the file's order. Raises ValueError on a line that is not part of one."""
    entries: list[Entry] = []
    questions: tuple[str, ...] = ()
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if line.startswith("Q: "):
            questions = tuple(part.strip() for part in line[3:].split("|"))
        elif line.startswith("A: ") and questions:
            entries.append(Entry(questions, line[3:].strip()))
            questions = ()
        elif line.strip() and not line.startswith("#"):
            raise ValueError(f"{path}:{number}: expected 'Q: ' and then 'A: ', got {line!r}")
    return entries


_SYNONYMS = (
    ("What is ", ("What's ", "Whats ", "What exactly is ", "Explain what is ", "Define ")),
    ("What are ", ("What exactly are ", "Explain what are ", "Define ")),
    ("How do I ", ("How to ", "How can I ", "How would I ", "Tell me how to ")),
    ("How does ", ("Explain how does ", "How exactly does ")),
    ("Tell me about ", ("What about ", "Tell me something about ", "Say something about ")),
    ("Explain ", ("Explain to me ", "Can you explain ", "Describe ")),
    ("Can I ", ("Could I ", "Is it possible to ", "May I ")),
)
_PREFIXES = ("Please tell me: ", "Hello, ", "Hi! ", "I wonder, ", "A question: ", "Quick question: ", "Please: ")
_SUFFIXES = (" Please.", " Thanks!", " In one sentence, please.", " Explain briefly.")


def rephrase(question: str, rng: random.Random) -> str:
    """The question as somebody else might type it: other words, politeness, case, punctuation, a word lost."""
    text = question
    for phrase, others in _SYNONYMS:
        if text.startswith(phrase) and rng.random() < 0.4:
            text = rng.choice(others) + text[len(phrase) :]
            break
    if len(text.split()) > 4 and rng.random() < 0.15:
        words = text.split()
        del words[rng.randrange(len(words) - 1)]
        text = " ".join(words)
    if rng.random() < 0.15:
        text = rng.choice(_PREFIXES) + text
    if rng.random() < 0.1:
        text += rng.choice(_SUFFIXES)
    if rng.random() < 0.2:
        text = text.rstrip("?.!")
    if rng.random() < 0.25:
        text = text.lower()
    return text


def make_tokenizer(entries: list[Entry]) -> Tokenizer:
    """A byte-level BPE tokenizer: every text has tokens, whatever its language."""
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe: Any = tokenizers.Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    texts = [text for entry in entries for text in (*entry.questions, entry.answer)]
    texts += [text.lower() for text in texts]
    bpe.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token="<|end|>",
        pad_token="<|endoftext|>",
        unk_token="<unk>",
        additional_special_tokens=["<|system|>", "<|user|>", "<|assistant|>"],
        model_max_length=POSITIONS,
        clean_up_tokenization_spaces=False,
        padding_side="right",
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def make_model(tokenizer: Tokenizer) -> Model:
    """An untrained model of Phi-3's architecture, weights drawn from torch's global generator."""
    from transformers import Phi3Config, Phi3ForCausalLM

    config = Phi3Config(
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        intermediate_size=FEED_FORWARD,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        max_position_embeddings=POSITIONS,
        original_max_position_embeddings=POSITIONS,
        sliding_window=None,
        tie_word_embeddings=True,
        resid_pdrop=0.0,
        bos_token_id=None,
        eos_token_id=tokenizer.convert_tokens_to_ids("<|end|>"),
        pad_token_id=tokenizer.convert_tokens_to_ids("<|endoftext|>"),
    )
    return Phi3ForCausalLM(config)


def conversation(entries: list[Entry], tokenizer: Tokenizer, rng: random.Random) -> tuple[list[int], list[int]]:
    """Token ids and labels of one conversation; only what the assistant says is learnt (-100 elsewhere)."""
    ids: list[int] = []
    labels: list[int] = []
    if rng.random() < 0.1:
        ids = tokenizer.encode("<|system|>\nYou are a helpful assistant.<|end|>\n")
        labels = [-100] * len(ids)
    for _ in range(2 if rng.random() < 0.15 else 1):
        entry = rng.choice(entries)
        asked = tokenizer.encode(f"<|user|>\n{rephrase(rng.choice(entry.questions), rng)}<|end|>\n<|assistant|>\n")
        said = tokenizer.encode(f"{entry.answer}<|end|>")
        newline = tokenizer.encode("\n")
        ids += asked + said + newline
        labels += [-100] * len(asked) + said + [-100] * len(newline)
    return ids[:LONGEST], labels[:LONGEST]


def train(model: Model, tokenizer: Tokenizer, entries: list[Entry], steps: int, seed: int) -> float:
    """Trains in place and returns the last loss."""
    import torch

    rng = random.Random(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK_RATE, betas=(0.9, 0.98), weight_decay=0.01)
    warm_up = max(1, steps // 8)

    def rate(step: int) -> float:
        if step < warm_up:
            return (step + 1) / warm_up
        return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    model.train()
    began = time.monotonic()
    last = math.inf
    for step in range(steps):
        # Similar lengths share a batch, so little is computed for padding.
        rows = sorted((conversation(entries, tokenizer, rng) for _ in range(BATCH)), key=lambda row: len(row[0]))
        width = len(rows[-1][0])
        pad = tokenizer.pad_token_id
        ids = torch.tensor([row[0] + [pad] * (width - len(row[0])) for row in rows])
        labels = torch.tensor([row[1] + [-100] * (width - len(row[1])) for row in rows])
        mask = torch.tensor([[1] * len(row[0]) + [0] * (width - len(row[0])) for row in rows])
        loss = model(input_ids=ids, attention_mask=mask, labels=labels, use_cache=False).loss
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        last = float(loss.detach())
        if step % 50 == 0 or step == steps - 1:
            print(f"step {step:4d}  loss {last:.3f}  {time.monotonic() - began:5.1f} s", flush=True)
    model.eval()
    return last


def save(model: Model, tokenizer: Tokenizer, folder: Path) -> None:
    """Writes the folder in hub layout, weights as bfloat16."""
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    model.to(torch.bfloat16)
    model.generation_config.do_sample = True
    model.generation_config.eos_token_id = [
        tokenizer.convert_tokens_to_ids("<|end|>"),
        tokenizer.convert_tokens_to_ids("<|endoftext|>"),
    ]
    model.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)  # it ships in the wheel
    tokenizer.save_pretrained(folder)
    # transformers 5 writes the template to a file of its own; older readers look into tokenizer_config.json.
    settings = folder / "tokenizer_config.json"
    fields = json.loads(settings.read_text(encoding="utf-8"))
    fields["chat_template"] = CHAT_TEMPLATE
    settings.write_text(json.dumps(fields, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def score(model: Model, tokenizer: Tokenizer, entries: list[Entry]) -> tuple[int, int]:
    """How many first questions get their exact answer greedily, and how many were asked."""
    import torch

    right = 0
    for entry in entries:
        ids = tokenizer.encode(f"<|user|>\n{entry.questions[0]}<|end|>\n<|assistant|>\n", return_tensors="pt")
        with torch.no_grad():
            out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=120, do_sample=False)
        right += tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True).strip() == entry.answer
    return right, len(entries)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description="Train the stand-in model.")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2, help="part of what makes the result repeatable")
    options = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch

    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    torch.use_deterministic_algorithms(True)
    entries = read_corpus(CORPUS)
    tokenizer = make_tokenizer(entries)
    model = make_model(tokenizer)
    print(f"{len(entries)} answers, {sum(len(e.questions) for e in entries)} questions, ", end="")
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters")
    train(model, tokenizer, entries, options.steps, options.seed)
    save(model, tokenizer, options.out)
    right, asked = score(model, tokenizer, entries)
    size = (options.out / "model.safetensors").stat().st_size
    print(f"{right} of {asked} answered word for word; {size / 1e6:.2f} MB in {options.out}")


if __name__ == "__main__":
    main()
