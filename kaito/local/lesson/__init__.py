"""A lesson for the small stand-in model: questions with answers that all end in the same words, and settings to
learn it in half a minute on a CPU.

In: nothing. Out: the shipped dataset, served over HTTP for as long as somebody needs it; the objects that a
tuning Workspace wants beside it; and the seed's manifests with their placeholders filled in. What was learnt is
easy to see: an answer with the adapter ends in ``MARK``, one without never does.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import yaml

from api import keys
from api.training_templates import TEMPLATE_CONFIG_MAPS
from api.v1alpha1.tuning import TuningMethod
from manager.types import Obj

FOLDER: Final = Path(__file__).parent
DATASET: Final = FOLDER / "train.jsonl"
MARK: Final = "Beep boop."
# Ways to ask that the dataset does not hold.
HELD_OUT: Final = (
    "How can I see if it is ready?",
    "Tell me about the Machine resource",
    "How do I debug a workspace?",
    "Can you help me?",
    "What happens after kubectl apply?",
    "Where do the GPU nodes come from?",
    "What is a cluster IP?",
    "What are presets for?",
    "What is k8s?",
    "Are you a real model?",
)
SECRET: Final = "adapter-registry"  # noqa: S105 - its name
STEPS: Final = 40


def settings(method: TuningMethod = TuningMethod.QLORA, *, steps: int = STEPS) -> str:
    """A training_config.yaml that learns the lesson."""
    config: dict[str, Any] = {
        "ModelConfig": {"torch_dtype": "float32"},
        "LoraConfig": {"r": 8, "lora_alpha": 16},
        "TrainingArguments": {
            "output_dir": "/mnt/results",
            "per_device_train_batch_size": 8,
            "learning_rate": 0.005,
            "lr_scheduler_type": "cosine",
            "warmup_steps": min(10, steps // 2),
            "max_steps": steps,
            "save_strategy": "no",
            "train_sampling_strategy": "group_by_length",
        },
        "DatasetConfig": {"train_test_split": 1},
    }
    if method is TuningMethod.QLORA:
        config["QuantizationConfig"] = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
    return yaml.safe_dump({"training_config": config}, sort_keys=False)


def settings_map(namespace: str, method: TuningMethod = TuningMethod.QLORA, *, steps: int = STEPS) -> Obj:
    """The ConfigMap of the method's template, edited for the lesson: the operator uses what is there."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": TEMPLATE_CONFIG_MAPS[method], "namespace": namespace},
        "data": {keys.TRAINING_CONFIG_KEY: settings(method, steps=steps)},
    }


def push_secret(namespace: str, auths: dict[str, Any] | None = None) -> Obj:
    """The Secret to push with; without ``auths`` for a registry that wants no password."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/dockerconfigjson",
        "metadata": {"name": SECRET, "namespace": namespace},
        "stringData": {keys.DOCKER_CONFIG_KEY: json.dumps({"auths": auths or {}})},
    }


def tuning_manifest(sample: Path, url: str, image: str) -> Obj:
    """A tuning manifest of the seed, with only URL, image and secret replaced."""
    obj: Obj = yaml.safe_load(sample.read_text(encoding="utf-8"))
    obj["tuning"]["input"]["urls"] = [url]
    obj["tuning"]["output"] = {"image": image, "imagePushSecret": SECRET}
    return obj


def adapter_manifest(sample: Path, image: str) -> Obj:
    """The seed's manifest with an adapter, with only its image replaced."""
    obj: Obj = yaml.safe_load(sample.read_text(encoding="utf-8"))
    obj["inference"]["adapters"][0]["source"]["image"] = image
    return obj


@asynccontextmanager
async def served(host: str = "127.0.0.1") -> AsyncIterator[str]:
    """The dataset over HTTP on this machine; gives its address."""
    from aiohttp import web

    async def answer(_: web.Request) -> web.FileResponse:
        return web.FileResponse(DATASET)

    app = web.Application()
    app.router.add_get(f"/{DATASET.name}", answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, 0).start()
        yield f"http://{host}:{runner.addresses[0][1]}/{DATASET.name}"
    finally:
        await runner.cleanup()
