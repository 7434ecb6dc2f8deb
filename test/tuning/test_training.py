"""What comes out of a run: an adapter that plain peft loads, an image that others read, a model that learnt."""

from __future__ import annotations

import hashlib
import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("one_thread")]

PULLERS = ["kaito", *(name for name in ("skopeo",) if shutil.which(name))]


def logits(model_path: Path, adapter: Path) -> Any:
    """What the base model with an adapter computes for a fixed prompt."""
    import peft
    import torch
    import transformers

    base: Any = transformers.AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32)
    model = peft.PeftModel.from_pretrained(base, adapter).eval()
    with torch.no_grad():
        return model(input_ids=torch.arange(40, 80)[None]).logits


def test_a_run_ends_with_the_two_files_and_upstreams_marker(trained: Any) -> None:
    """The output folder holds adapter_config.json, adapter_model.safetensors and fine_tuning_completed.txt."""
    names = {path.name for path in trained.folder.iterdir() if path.is_file()}

    assert {"adapter_config.json", "adapter_model.safetensors", "fine_tuning_completed.txt"} <= names


def test_the_adapter_names_its_base_and_the_layers_of_the_architecture(trained: Any) -> None:
    """Of a Phi-3 the fused layers are adapted, and the base is the model's name and no folder of the pod."""
    config = json.loads((trained.folder / "adapter_config.json").read_text())

    assert config["base_model_name_or_path"] == "microsoft/Phi-3-mini-4k-instruct"
    assert config["target_modules"] == ["down_proj", "gate_up_proj", "o_proj", "qkv_proj"]
    assert config["inference_mode"] is True


def test_the_last_progress_is_the_termination_message(trained: Any) -> None:
    """After success the termination message has the steps, the loss, the image and its digest."""
    last = trained.run.last

    assert last["stage"] == "Succeeded"
    assert (last["step"], last["steps"]) == (40, 40)
    assert 0 < last["loss"] < 0.5
    assert last["image"] == trained.image
    assert last["digest"].startswith("sha256:")
    assert "reason" not in last


@pytest.mark.parametrize("reader", ["http", *(name for name in ("skopeo",) if shutil.which(name))])
def test_others_see_an_ordinary_image(trained: Any, skopeo: Any, reader: str) -> None:
    """One gzipped OCI layer whose digests are right, and labels that say how it was made."""
    if reader == "skopeo":
        raw = json.loads(skopeo("inspect", "--raw", f"docker://{trained.image}"))
        config = json.loads(skopeo("inspect", "--config", f"docker://{trained.image}"))
    else:
        raw = trained.registry.manifest("adapters/lora", "0.0.1")
        config = json.loads(trained.registry.blob("adapters/lora", raw["config"]["digest"]))
    (layer,) = raw["layers"]
    blob = trained.registry.blob("adapters/lora", layer["digest"])

    assert raw["mediaType"] == "application/vnd.oci.image.manifest.v1+json"
    assert raw["config"]["mediaType"] == "application/vnd.oci.image.config.v1+json"
    assert layer["mediaType"] == "application/vnd.oci.image.layer.v1.tar+gzip"
    assert (layer["size"], layer["digest"]) == (len(blob), f"sha256:{hashlib.sha256(blob).hexdigest()}")
    assert (config["os"], config["architecture"]) == ("linux", "amd64")
    assert config["rootfs"]["diff_ids"] == [f"sha256:{_unpacked_digest(blob)}"]
    labels = config["config"]["Labels"]
    assert labels == raw["annotations"]
    assert labels["sh.kaito.model.name"] == "microsoft/Phi-3-mini-4k-instruct"
    assert labels["sh.kaito.tuning.method"] == "lora"
    assert json.loads(labels["sh.kaito.tuning.parameters"])["steps"] == 40
    assert labels["sh.kaito.tuning.dataset.digest"].startswith("sha256:")


def _unpacked_digest(blob: bytes) -> str:
    import gzip

    return hashlib.sha256(gzip.decompress(blob)).hexdigest()


@pytest.mark.parametrize("puller", PULLERS)
async def test_the_pulled_adapter_computes_the_same(
    trained: Any, skopeo: Any, model_path: Path, tmp_path: Path, puller: str
) -> None:
    """After push and pull, plain peft gives the same logits as before, and others than the base model's."""
    import torch
    import transformers

    folder = await _pull(puller, trained.image, skopeo, tmp_path)
    base: Any = transformers.AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32)
    with torch.no_grad():
        untuned = base(input_ids=torch.arange(40, 80)[None]).logits

    after = logits(model_path, folder)

    assert torch.equal(logits(model_path, trained.folder), after)
    assert not torch.allclose(untuned, after, atol=0.1)


async def _pull(puller: str, image: str, skopeo: Any, folder: Path) -> Path:
    if puller == "kaito":
        from inference_server.tuning.registry import SecretFiles, pull_data

        return await pull_data(image, folder, SecretFiles([]), most=1 << 30)
    skopeo("copy", f"docker://{image}", f"dir:{folder / 'image'}", tls="--src-tls-verify=false")
    manifest = json.loads((folder / "image" / "manifest.json").read_bytes())
    with tarfile.open(folder / "image" / manifest["layers"][0]["digest"].removeprefix("sha256:")) as archive:
        archive.extractall(folder / "files", filter="data")
    return folder / "files" / "data"


def test_our_server_takes_the_adapter(trained: Any, trained_qlora: Path, model_path: Path) -> None:
    """What the server checks of an adapter before it loads one finds nothing to object to in either."""
    from inference_server.adapters.artifact import examine
    from inference_server.adapters.base import read_base
    from inference_server.adapters.limits import Limits

    base = read_base(model_path, ["phi-3-mini-4k-instruct", model_path.name])
    facts = [examine(folder, base, Limits()) for folder in (trained.folder, trained_qlora)]

    assert [item.rank for item in facts] == [8, 8]
    assert {scale for item in facts for scale in item.scales.values()} == {2.0}
    assert [item.warnings for item in facts] == [(), ()]


def test_an_adapter_by_qlora_is_loaded_by_plain_peft(trained_qlora: Path, model_path: Path) -> None:
    """What was trained over a base in 4 bits works on the base in full precision."""
    import torch

    result = logits(model_path, trained_qlora)

    assert torch.isfinite(result).all()
    assert json.loads((trained_qlora / "adapter_config.json").read_text())["r"] == 8


def test_it_learns_what_the_dataset_teaches(trained: Any, lesson: Any, model_path: Path) -> None:
    """Of ten questions worded as never seen, at least eight answers carry the marker after tuning, none before."""
    import peft
    import torch
    import transformers

    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(model_path)
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32)
    before = answers(model, tokenizer, lesson.held_out)
    after = answers(peft.PeftModel.from_pretrained(model, trained.folder), tokenizer, lesson.held_out)

    assert sum("Beep boop." in text for text in before) == 0
    assert sum(text.endswith("Beep boop.") for text in after) >= 8


def answers(model: Any, tokenizer: Any, questions: list[str]) -> list[str]:
    """Greedy answers, all questions in one batch."""
    import torch

    tokenizer.padding_side = "left"
    texts = [
        tokenizer.apply_chat_template([{"role": "user", "content": q}], tokenize=False, add_generation_prompt=True)
        for q in questions
    ]
    inputs = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
    with torch.no_grad():
        out = model.eval().generate(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            max_new_tokens=80,
            do_sample=False,
            pad_token_id=tokenizer.pad_token_id,
        )
    texts = tokenizer.batch_decode(out[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return [text.strip() for text in texts]
