"""The vLLM plug-in's repairs, without vLLM."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import textwrap
import time
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from inference_server import vllm_plugin


def test_vllm_finds_the_plugin():
    """The distribution declares the entry point by which vLLM loads the plug-in in each process."""
    [found] = [point for point in entry_points(group="vllm.general_plugins") if point.name == "kaito_cpu_fixes"]
    assert found.load() is vllm_plugin.register


def test_asking_for_amx_agrees_with_the_processor():
    """The grant is given where the processor has AMX, and refused without harm elsewhere."""
    assert vllm_plugin.request_amx() is (" amx_tile" in Path("/proc/cpuinfo").read_text())


def test_rows_without_adapter_come_out_as_zeros():
    """The mask leaves rows with an adapter alone and zeroes those with index -1, in batches of one as well."""
    torch = pytest.importorskip("torch")

    def shrink(inputs, weights, output, indices, scaling):
        output[:, :] = scaling * torch.einsum("bi,boi->bo", inputs, weights[indices])

    masked = vllm_plugin.masked_shrink(shrink)
    weights = torch.ones(2, 4, 3)
    output = torch.full((3, 4), 9.0)
    masked(torch.ones(3, 3), weights, output, torch.tensor([0, -1, 1]), 2.0)
    assert output.tolist() == [[6.0] * 4, [0.0] * 4, [6.0] * 4]
    single = torch.full((1, 4), 9.0)
    masked(torch.ones(1, 3), weights, single, torch.tensor([-1]))
    assert single.tolist() == [[0.0] * 4]


def test_a_generator_goes_back_to_its_seed():
    """Setting back what was drawn while a prompt was read leaves the draws of the seed, on a CPU too."""
    torch = pytest.importorskip("torch")
    generator = vllm_plugin.rewindable(torch.Generator)(device="cpu")
    generator.manual_seed(5)
    first = torch.rand(3, generator=generator)
    generator.set_offset(generator.get_offset() - 4)
    assert torch.equal(torch.rand(3, generator=generator), first)


@pytest.mark.parametrize("first", [True, False])
def test_a_later_part_of_a_model_has_a_buffer_before_its_first_step(first):
    """The first part is handed nothing and has none; a part that has one already keeps it."""

    class Runner:
        max_num_tokens, device, intermediate_tensors = 7, "cpu", None
        model_config = type("Config", (), {"dtype": "bfloat16"})

        def load_model(self):
            self.model = self

        def make_empty_intermediate_tensors(self, **shape):
            return shape

    load, runner = vllm_plugin.with_buffer(Runner.load_model, lambda: first), Runner()
    load(runner)
    assert runner.intermediate_tensors == (
        None if first else {"batch_size": 7, "dtype": "bfloat16", "device": "cpu"}
    )
    runner.intermediate_tensors = "made"
    load(runner)
    assert runner.intermediate_tensors == "made"


def _store_at(host):
    """The address that torch listens at for the meeting of nodes, and a word that went through it."""
    from datetime import timedelta

    from torch.distributed import TCPStore

    with socket.socket() as probe:
        probe.bind((host, 0))
        port = probe.getsockname()[1]
    store = vllm_plugin.at_its_address(TCPStore)(
        host_name=host, port=port, world_size=1, is_master=True, timeout=timedelta(seconds=10), multi_tenant=True
    )
    store.set("key", "word")
    listening = [line.split()[1] for line in Path("/proc/net/tcp").read_text().splitlines()[1:] if " 0A " in line]
    [address] = [text.partition(":")[0] for text in listening if int(text.partition(":")[2], 16) == port]
    return socket.inet_ntoa(bytes.fromhex(address)[::-1]), bytes(store.get("key"))


def test_nodes_meet_at_one_address_only():
    """The meeting port is closed at the machine's other addresses, where torch alone would have opened it."""
    pytest.importorskip("torch")
    assert _store_at("127.97.3.4") == ("127.97.3.4", b"word")


def test_a_name_of_another_machine_is_left_to_torch(monkeypatch):
    """Where the address cannot be listened at, torch is asked as if nothing had been wrapped."""
    asked = []
    monkeypatch.setattr(socket, "create_server", lambda *_, **__: (_ for _ in ()).throw(OSError("not mine")))
    make = vllm_plugin.at_its_address(lambda **options: asked.append(options))
    make(host_name="127.0.0.1", port=1, is_master=True)
    make(host_name="127.0.0.1", port=1, is_master=False)
    assert asked == [{"host_name": "127.0.0.1", "port": 1, "is_master": master} for master in (True, False)]


_FAMILY = """
    import multiprocessing, sys, time
    from inference_server.vllm_plugin import die_with_parent

    def child():
        die_with_parent()
        print("up", flush=True)
        time.sleep(60)

    if __name__ == "__main__":
        process = multiprocessing.get_context(sys.argv[1]).Process(target=child)
        process.start()
        print(process.pid, flush=True)
        time.sleep(60)
"""


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_an_engine_process_does_not_outlive_a_killed_server(tmp_path, method):
    """SIGKILL of the parent, which leaves it no chance to clean up, ends the child too."""
    script = tmp_path / "family.py"
    script.write_text(textwrap.dedent(_FAMILY))
    parent = subprocess.Popen(
        [sys.executable, str(script), method],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path.cwd())},
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert parent.stdout.readline() == "up\n"
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 10
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not alive(pid)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
