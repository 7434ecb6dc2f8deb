"""The vLLM plug-in's repairs, without vLLM."""

from __future__ import annotations

import os
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
