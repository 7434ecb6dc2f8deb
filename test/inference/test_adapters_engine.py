"""Adapters on the real engine, one start for the module: what they compute, and that a swap disturbs nobody."""

from __future__ import annotations

import asyncio
import itertools
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import aclosing
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio
from aiohttp.test_utils import TestClient, TestServer
from prometheus_client import CollectorRegistry

from api.adapters import AdapterState, WantedAdapter
from inference_server.adapters.artifact import examine
from inference_server.adapters.base import BaseModel
from inference_server.adapters.decide import Artifact, Planned
from inference_server.adapters.limits import Limits
from inference_server.adapters.manager import AdapterManager, Pace
from inference_server.adapters.model import AdapterChoice, AdapterSlot
from inference_server.adapters.setup import make_manager
from inference_server.adapters.slots import Slots
from inference_server.app import make_app
from inference_server.engine import VllmEngine, prepare_environment
from inference_server.oci.client import new_session
from inference_server.protocol import AdapterRefused, EngineFailed, Message, Sampling, UnknownAdapter
from inference_server.server import make_shim
from inference_server.settings import ServeSettings
from inference_server.sources.setup import fetch_model
from inference_server.sources.store import Held
from inference_server.testing.adapters import linear_shapes, write_adapter
from inference_server.testing.images import archive, artifact, files_of, image
from inference_server.testing.served import Served
from inference_server.vllm_arguments import choose, parse

pytestmark = [
    pytest.mark.engine,
    pytest.mark.timeout(600),
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.skipif(find_spec("vllm") is None, reason="the engine is not installed"),
]

MODEL = Path(str(files("kaito.local"))) / "models" / "tiny-phi3"
PROMPT = "What is KAITO?"
GREEDY = Sampling(max_tokens=12, temperature=0.0, ignore_eos=True)
_numbers = itertools.count()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("adapters")


@pytest.fixture(scope="module")
def adapters(folder) -> dict[str, Path]:
    """Three random adapters of different rank, scaling and layers; ``b`` is rank stabilised."""
    shapes = linear_shapes(MODEL)
    return {
        "a": write_adapter(folder / "a", 1, shapes, rank=4, alpha=8),
        "b": write_adapter(
            folder / "b", 2, shapes, rank=8, alpha=8, targets=("qkv_proj", "gate_up_proj"), use_rslora=True
        ),
        "c": write_adapter(folder / "c", 3, shapes, rank=2, alpha=6),
    }


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(folder, foreign_registry) -> AsyncIterator[VllmEngine]:
    """The engine, with its model pulled from a registry."""
    async with new_session() as session:
        made = artifact(files_of(MODEL))
        reference = await made.push(session, foreign_registry.host, "models/tiny", "v1")
    model = await fetch_model(
        ServeSettings(model=f"oci://{reference}", cache=folder / "cache"), lambda progress: None
    )
    assert files_of(model.path) == files_of(MODEL)
    settings = ServeSettings(
        model=str(model.path),
        dtype="float32",  # so that numbers can be compared closely
        max_model_len=256,
        max_num_seqs=32,
        kv_cache_bytes=1 << 27,
        adapters=folder / "unused.json",
        max_loras=8,
        max_lora_rank=32,
    )
    prepare_environment(settings, "ERROR")
    started = VllmEngine(settings)
    await started.start()
    yield started
    await started.stop()
    model.release()


async def answer(engine: VllmEngine, prompt: str, choice: AdapterChoice | None, sampling=GREEDY) -> str:
    tokens = engine.encode_chat([Message("user", prompt)])
    text = ""
    async with aclosing(engine.generate(tokens, sampling, f"r{next(_numbers)}", adapter=choice)) as pieces:
        async for piece in pieces:
            text += piece.text
    return text


async def first_logprobs(engine: VllmEngine, prompt: str, slot: AdapterSlot | None) -> dict[int, float]:
    """Log-probabilities of the likeliest first tokens, straight from the engine."""
    from vllm.sampling_params import SamplingParams

    tokens = engine.encode(prompt)
    parameters = SamplingParams(max_tokens=1, temperature=0.0, logprobs=20)
    last = None
    async for output in engine._llm.generate(
        {"prompt_token_ids": tokens},
        parameters,
        f"r{next(_numbers)}",
        lora_request=engine._adapter_of(AdapterChoice("x", slot)),
    ):
        last = output
    return {token: entry.logprob for token, entry in last.outputs[0].logprobs[0].items()}


def peft_logprobs(adapters: dict[str, Path], mixes: dict[str, dict[str, float]], prompt_tokens):
    """What PEFT makes of the same weights, for each mix of adapters and strengths."""
    import torch
    from peft import PeftModel
    from peft.tuners.lora import LoraLayer
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32)
    results = {}
    with torch.no_grad():
        tokens = torch.tensor([prompt_tokens])
        results["base"] = torch.log_softmax(base(tokens).logits[0, -1], -1)
        model = PeftModel.from_pretrained(base, adapters["a"], adapter_name="a")
        model.load_adapter(adapters["b"], adapter_name="b")
        layers = [module for module in model.modules() if isinstance(module, LoraLayer)]
        for name, mix in mixes.items():
            # Not add_weighted_adapter: it takes rank stabilisation from the first adapter, and applies it again.
            model.base_model.set_adapter(list(mix))
            for layer, (adapter, strength) in itertools.product(layers, mix.items()):
                layer.set_scale(adapter, strength)
            results[name] = torch.log_softmax(model(tokens).logits[0, -1], -1)
    return results


MIXES = {
    "A1": {"a": 1.0},
    "A05": {"a": 0.5},
    "B1": {"b": 1.0},
    "B05": {"b": 0.5},
    "A1B1": {"a": 1.0, "b": 1.0},
    "A05B05": {"a": 0.5, "b": 0.5},
    "A1B05": {"a": 1.0, "b": 0.5},
}


async def test_each_mix_is_what_peft_computes_in_one_batch_and_alone(engine, adapters, folder):
    """Base, A, B and A+B at strengths 0.5 and 1 say alone what they say in one batch, and what PEFT computes."""
    slots = Slots(engine, folder / "slots", lambda: None)
    slots.open()
    held = Held(folder, (folder / "lock").open("wb"))

    def artifact(name: str) -> Artifact:
        return Artifact(name, name, held, name, examine(folder / name, BaseModel(), Limits(max_rank=32)))

    loaded: dict[str, AdapterSlot | None] = {"base": None}
    for name, mix in MIXES.items():
        wanted = tuple((WantedAdapter(name=n, path="x", strength=s), artifact(n)) for n, s in mix.items())
        loaded[name] = (await slots.load(Planned(name, wanted))).combined
    assert len(set(loaded.values())) == 8

    expected = peft_logprobs(adapters, MIXES, engine.encode(PROMPT))
    batch = await asyncio.gather(*(first_logprobs(engine, PROMPT, slot) for slot in loaded.values()))
    for name, logprobs in zip(loaded, batch, strict=True):
        worst = max(abs(value - float(expected[name][token])) for token, value in logprobs.items())
        print(f"{name}: largest difference of a log-probability from PEFT's {worst:.1e}")
        assert worst < 2e-4, f"{name} differs from PEFT by {worst}"

    alone = {name: await answer(engine, PROMPT, AdapterChoice(name, slot)) for name, slot in loaded.items()}
    assert len(set(alone.values())) >= 6  # they do say different things
    crowd = [*loaded, *reversed(loaded)]
    together = await asyncio.gather(*(answer(engine, PROMPT, AdapterChoice(name, loaded[name])) for name in crowd))
    assert together == [alone[name] for name in crowd]

    slots.retire_all_but(None)
    await slots.sweep(0.0)
    with pytest.raises(AdapterRefused, match="no longer loaded"):
        await answer(engine, PROMPT, AdapterChoice("A1", loaded["A1"]))
    slots.close()


def write_list(path: Path, revision: str, **adapters: tuple[Path | str, float]) -> None:
    """Replace the list's file in one step, as a ConfigMap's volume does. A text is an image's reference."""
    entries = [
        {"name": n, "path" if isinstance(source, Path) else "image": str(source), "strength": strength}
        for n, (source, strength) in adapters.items()
    ]
    draft = path.with_suffix(".draft")
    draft.write_text(json.dumps({"revision": revision, "adapters": entries}))
    draft.replace(path)


async def until(check, seconds: float = 180) -> None:
    async with asyncio.timeout(seconds):
        while not check():
            await asyncio.sleep(0.02)


@pytest_asyncio.fixture(loop_scope="module")
async def manager(engine, adapters, folder, tmp_path) -> AsyncIterator[AdapterManager]:
    settings = ServeSettings(
        model=str(MODEL), adapters=folder / "list.json", max_lora_rank=32, cache=tmp_path / "cache"
    )
    write_list(folder / "list.json", "1", a=(adapters["a"], 1.0), b=(adapters["b"], 0.5))
    made = make_manager(engine, settings, registry=CollectorRegistry(), pace=Pace(poll=0.02))
    assert made is not None
    await made.start()
    yield made
    write_list(folder / "list.json", "end")
    await until(lambda: made.observed().revision == "end" and not engine._adapters)
    await made.stop()


async def test_a_swap_under_load_drops_and_mixes_no_answer(engine, manager, adapters, folder):
    """While requests run, a list is replaced: each answer is wholly the old set's or the new one's, none fails."""
    greedy = Sampling(max_tokens=12, temperature=0.0, ignore_eos=True)

    async def ask(name: str | None) -> str:
        with manager.choose(name) as choice:
            return await answer(engine, PROMPT, choice, greedy)

    before = {name: await ask(name) for name in (None, "", "a", "b")}
    assert len(set(before.values())) == 4
    answers: dict[str | None, list[str]] = {name: [] for name in before}
    stop = False

    async def client(name: str | None) -> None:
        while not stop:
            answers[name].append(await ask(name))

    clients = [asyncio.create_task(client(name)) for name in (None, "", "a", "b")]
    await until(lambda: all(answers.values()))
    with manager.choose("a") as kept:  # a request that is slow to begin still gets what it chose
        write_list(folder / "list.json", "2", a=(adapters["c"], 0.75), b=(adapters["b"], 0.5))
        await until(lambda: manager.observed().revision == "2")
        swapped = {name: len(texts) for name, texts in answers.items()}
        await until(lambda: all(len(answers[name]) > swapped[name] + 1 for name in answers))
        late = await answer(engine, PROMPT, kept, greedy)
    stop = True
    await asyncio.gather(*clients)

    after = {name: await ask(name) for name in before}
    assert late == before["a"]
    assert after[""] == before[""]
    assert after["b"] == before["b"]
    assert after["a"] != before["a"]
    assert after[None] != before[None]
    for name, texts in answers.items():
        assert set(texts) <= {before[name], after[name]}, name
        assert texts[-1] == after[name]
    await until(lambda: len(engine._adapters) == 3)  # a, b and both: the old ones are unloaded
    assert not engine.errored


@pytest_asyncio.fixture(loop_scope="module")
async def client(engine, manager) -> AsyncIterator[TestClient]:
    """The HTTP application over the engine and its adapters."""
    shim = make_shim(
        ServeSettings(model=str(MODEL), served_model_name="base"), engine, registry=CollectorRegistry()
    )
    shim.adapters = manager
    shim.gate.slots = 32
    async with TestClient(TestServer(make_app(shim))) as made:
        yield made


async def text_of(client: TestClient, path: str, model: str, *, stream: bool) -> str:
    """The answer of one adapter, whose name must be the answer's model."""
    body = {"model": model, "stream": stream, "temperature": 0, "max_tokens": 12, "ignore_eos": True}
    body |= {"messages": [{"role": "user", "content": PROMPT}]} if "chat" in path else {"prompt": PROMPT}
    async with client.post(path, json=body) as reply:
        assert reply.status == 200, await reply.text()
        raw = await reply.text()
    lines = [line[6:] for line in raw.splitlines() if line.startswith("data: {")] if stream else [raw]
    answers = [json.loads(line) for line in lines]
    assert {answer["model"] for answer in answers} == {model}
    choices = [choice for answer in answers for choice in answer["choices"]]
    if "chat" not in path:
        return "".join(choice["text"] for choice in choices)
    return "".join(choice["delta" if stream else "message"]["content"] for choice in choices)


async def test_openai_clients_choose_an_adapter_by_its_name(engine, manager, client):
    """`model` picks the base model or an adapter on both routes, streamed or whole; the list has their parents."""
    async with client.get("/v1/models") as reply:
        models = {item["id"]: item["parent"] for item in (await reply.json())["data"]}
    assert {name: models[name] for name in ("a", "b")} == dict.fromkeys(("a", "b"), next(iter(models)))
    base = next(iter(models))
    expected = {}
    for name in ("a", "b"):
        with manager.choose(name) as choice:
            expected[name] = await answer(engine, PROMPT, choice)
    expected[base] = await answer(engine, PROMPT, None)
    assert len(set(expected.values())) == 3

    asked = [(name, stream) for name in expected for stream in (False, True)]
    chats = await asyncio.gather(*(text_of(client, "/v1/chat/completions", n, stream=s) for n, s in asked))
    assert dict(zip(asked, chats, strict=True)) == {(name, stream): expected[name] for name, stream in asked}
    texts = await asyncio.gather(*(text_of(client, "/v1/completions", n, stream=s) for n, s in asked))
    assert len(set(texts)) == 3
    assert texts[::2] == texts[1::2]
    async with client.post("/v1/chat/completions", json={"model": "c", "messages": []}) as reply:
        assert (reply.status, "served are" in (await reply.json())["error"]["message"]) == (404, True)


async def test_an_unknown_engine_option_names_the_nearest(engine):
    """A slip in the configuration file's engine options is an error that suggests what was meant."""
    settings = ServeSettings(model=str(MODEL), engine_options={"max_modle_len": 512})
    with pytest.raises(EngineFailed, match="did you mean 'max_model_len'"):
        parse(choose(settings, cpu=True))


async def test_a_broken_adapter_leaves_the_old_set_serving_and_says_why(
    engine, manager, adapters, folder, tmp_path
):
    """A list with an adapter that the engine cannot take changes no answer, and its reason is to be seen."""
    with manager.choose(None) as choice:
        before = await answer(engine, PROMPT, choice)
    shapes = {name: (rows, columns + 8) for name, (rows, columns) in linear_shapes(MODEL).items()}
    wrong = write_adapter(tmp_path / "wrong", 9, shapes)
    write_list(folder / "list.json", "2", a=(adapters["a"], 1.0), b=(wrong, 0.5))
    await until(lambda: any(entry.state is AdapterState.FAILED for entry in manager.observed().adapters))
    entries = {entry.name: entry for entry in manager.observed().adapters}
    assert manager.observed().revision == "1"
    assert entries["a"].state is AdapterState.LOADED
    assert "made for another model" in entries["b"].message
    assert "serves at strength 0.5" in entries["b"].message
    with manager.choose(None) as choice:
        assert await answer(engine, PROMPT, choice) == before
    with pytest.raises(UnknownAdapter, match="those there: a, b"):
        manager.choose("c")


@pytest.mark.skipif(shutil.which("skopeo") is None, reason="skopeo is not installed")
async def test_an_adapter_that_skopeo_pushed_answers_as_the_one_from_a_folder(
    engine, manager, adapters, folder, foreign_registry
):
    """From Debian's registry in upstream's shape (busybox's /data): the same answers as from a folder."""
    with manager.choose("a") as choice:
        expected = await answer(engine, PROMPT, choice)
    data = archive({f"data/{name}": content for name, content in files_of(adapters["a"]).items()})
    layout = image([archive({"bin/busybox": b"x"}), data], docker=False).write_layout(folder / "oci", "v1")
    target = f"{foreign_registry.host}/adapters/a:v1"
    push = await asyncio.create_subprocess_exec(
        "skopeo", "copy", "--dest-tls-verify=false", f"oci:{layout}:v1", f"docker://{target}"
    )
    assert await push.wait() == 0
    write_list(folder / "list.json", "2", a=(target, 1.0))
    await until(lambda: manager.observed().revision == "2")
    (entry,) = manager.observed().adapters
    assert entry.state is AdapterState.LOADED
    assert entry.image == target
    with manager.choose(None) as choice:
        assert await answer(engine, PROMPT, choice) == expected


async def test_what_the_engine_refuses_does_not_end_it(engine, folder):
    """An adapter that only the engine finds wrong, or a folder that is gone, is refused and the engine lives."""
    with pytest.raises(AdapterRefused):
        await engine.load_adapter(AdapterSlot(900, "gone#900", folder / "gone", 4))
    shapes = {"model.layers.0.self_attn.other_proj": (240, 240)}
    write_adapter(folder / "odd", 5, shapes, targets=("other_proj",))
    with pytest.raises(AdapterRefused, match="other_proj"):
        await engine.load_adapter(AdapterSlot(901, "odd#901", folder / "odd", 4))
    assert await answer(engine, PROMPT, None)
    assert not engine.errored


# ------------------------------------------------------------------ a process of its own, after a restart


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def life_before(engine, adapters, folder) -> dict[str, str]:
    """What a server answered whose adapters were in force when it ended. It leaves its cache behind."""
    settings = ServeSettings(
        model=str(MODEL), adapters=folder / "ws.json", max_lora_rank=32, cache=folder / "ws", identity="ws"
    )
    write_list(folder / "ws.json", "1", a=(adapters["a"], 1.0), b=(adapters["b"], 0.5))
    manager = make_manager(engine, settings, registry=CollectorRegistry())
    assert manager is not None
    await manager.start()
    answers = {}
    for name in ("a", "b", ""):
        with manager.choose(name) as choice:
            answers[name] = await answer(engine, PROMPT, choice)
    await manager.stop()
    for name in list(engine._adapters):
        await engine.unload_adapter(name)
    return answers


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def restarted(life_before, folder) -> AsyncIterator[Served]:
    """`kaito serve` on that cache, with a list whose newest adapter is nowhere."""
    write_list(folder / "ws.json", "2", a=(folder / "nowhere", 1.0))
    server = Served(
        folder / "log", MODEL, f"--adapters={folder / 'ws.json'}", f"--cache={folder / 'ws'}", "--identity=ws",
        "--max-lora-rank=32", "--dtype=float32", "--max-model-len=256",
    )  # fmt: skip
    try:
        await server.until(200)
        yield server
    finally:
        server.process.kill()
        server.process.wait()


async def test_after_a_restart_the_last_good_adapters_serve(life_before, restarted):
    """A pod that comes back to a list it cannot have in force answers with the set that was, and says why."""
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{restarted.url}/v1/adapters") as reply:
            seen = await reply.json()
        assert seen["revision"] == "1"
        assert "nowhere" in json.dumps(seen)
        for name, expected in life_before.items():
            body = {"prompt": PROMPT, "adapter": name, "return_full_text": False, "stream": True}
            body["generate_kwargs"] = {"do_sample": False, "max_new_tokens": 12}
            async with session.post(f"{restarted.url}/chat", json=body) as reply:
                lines = [line[6:] for line in (await reply.text()).splitlines() if line.startswith("data: {")]
            text = "".join(json.loads(line)["Result"] for line in lines)
            assert text == expected[: len(text)]
            assert len(text) > 5


async def test_sigterm_ends_the_whole_tree_with_code_0(restarted):
    """SIGTERM finishes the running request, exits 0 and leaves no process."""
    processes = restarted.descendants()
    assert processes
    kwargs = {"min_new_tokens": 200, "max_new_tokens": 220}
    async with aiohttp.ClientSession() as session:
        body = {"prompt": "hello", "stream": True, "generate_kwargs": kwargs}
        async with session.post(f"{restarted.url}/chat", json=body) as reply:
            await reply.content.readany()  # it has begun
            restarted.process.terminate()
            text = await reply.text()
    assert text.endswith("data: [DONE]\n\n")
    assert await asyncio.to_thread(restarted.process.wait, 120) == 0
    assert restarted.gone(processes)
    assert "Traceback" not in restarted.log.read_text()
