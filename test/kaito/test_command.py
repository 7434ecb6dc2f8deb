"""The command itself: what --help teaches, what it costs, and how failures become words and exit codes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kaito import cli
from kaito.errors import CliError

HEAVY = {"aiohttp", "pydantic", "kubernetes_asyncio", "vllm", "torch", "yaml", "cryptography"}
_ENV = {**os.environ, "TERM": "dumb", "COLUMNS": "100"}


def _kaito(*args: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "kaito", *args],
        capture_output=True,
        text=True,
        env={**_ENV, **(env or {})},
        stdin=subprocess.DEVNULL,
        timeout=60,
    )


def test_help_teaches_where_to_start() -> None:
    """--help names what the product does, the first command to type, and the commands by what they are for."""
    shown = _kaito("--help").stdout

    for words in (
        "Workspace manifest",
        "kaito demo",
        "On this machine",
        "With any cluster",
        "--install-completion",
    ):
        assert words in shown
    for command in ("demo", "up", "down", "apply", "get", "chat", "logs", "delete", "version"):
        assert command in shown


@pytest.mark.parametrize(
    "command",
    [c.callback.__name__.replace("_", "-") for c in cli.app.registered_commands if c.callback],
)
def test_every_command_has_help(command: str) -> None:
    """Each command and each of its options says what it does."""
    from typer.main import get_command

    found = get_command(cli.app).commands[command]

    assert found.help
    undocumented = [p.name for p in found.params if not getattr(p, "help", None)]
    assert undocumented == []


@pytest.mark.parametrize(
    ("args", "heavy"),
    [
        (["--help"], HEAVY),
        # typer itself reads the options of a single command with pydantic, where that is installed.
        (["get", "--help"], HEAVY - {"pydantic"}),
        (["up", "--help"], HEAVY - {"pydantic"}),
        (["serve", "--help"], HEAVY - {"pydantic"}),
    ],
)
def test_help_imports_nothing_heavy(args: list[str], heavy: set[str]) -> None:
    """--help loads none of the libraries that cost a noticeable time."""
    code = (
        "import sys\nfrom kaito.cli import app\n"
        f"try: app({args!r})\nexcept SystemExit: pass\n"
        f"sys.stderr.write(' '.join(m for m in {sorted(heavy)!r} if m in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=_ENV, timeout=60)

    assert "Usage" in done.stdout
    assert done.stderr == ""


def test_the_shell_completes_commands_and_options() -> None:
    """What `kaito --install-completion` installs asks the command itself, which answers."""

    def ask(instruction: str, words: str) -> str:
        env = {**_ENV, "_KAITO_COMPLETE": instruction, "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
        script = Path(sys.executable).with_name("kaito")  # `python -m kaito` has another name
        return subprocess.run([script], capture_output=True, text=True, env=env, timeout=60).stdout

    assert "complete " in ask("source_bash", "")
    assert ask("complete_bash", "kaito de").split() == ["demo", "delete"]
    assert "--watch" in ask("complete_bash", "kaito get --").split()


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["get"], 2, "Missing argument"),
        (["get", "pods", "-o", "xml"], 2, "xml"),
        (["aply"], 2, "apply"),
        (["up", "--port", "70000"], 2, "--port"),
        (["up", "--node-delay", "-1"], 2, "--node-delay"),
        (["up", "--weights", "phi"], 2, "PRESET=FOLDER"),
        (["up", "--home", "/proc/kaito"], 1, "--home"),
        (["delete", "-f", "x", "pod", "y"], 2, "not both"),
        (["delete", "pod"], 2, "nothing to delete"),
        (["apply", "-f", "/does/not/exist.yaml"], 1, "no such file: /does/not/exist.yaml"),
        (["demo", "--manifest", "/does/not/exist.yaml"], 1, "no such file"),
        (["chat", "w", " "], 2, "prompt is empty"),
        (["get", "pods", "--kubeconfig", "/does/not/exist"], 1, "does not exist"),
        (["logs", "deploy/x", "--kubeconfig", "/does/not/exist"], 1, "does not exist"),
    ],
)
def test_bad_input_is_one_clear_error(args: list[str], code: int, words: str) -> None:
    """Unusable input exits with 1 or 2 and says what is wrong on standard error, without answer or traceback."""
    done = _kaito(*args)

    assert done.returncode == code
    assert words in done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert "unexpected" not in done.stderr


def test_a_broken_kubeconfig_is_named(tmp_path: Path) -> None:
    """A kubeconfig that is no YAML ends as one line with a way to go on."""
    (tmp_path / "config").write_text(": - [")
    done = _kaito("get", "pods", env={"KUBECONFIG": str(tmp_path / "config")})

    assert done.returncode == 1
    assert str(tmp_path / "config") in done.stderr
    assert len(done.stderr.splitlines()) == 2


def test_a_server_that_is_not_there_is_named(tmp_path: Path) -> None:
    """Nobody listens: the error says where, and how to start a cluster."""
    (tmp_path / "config").write_text(
        "apiVersion: v1\nkind: Config\ncurrent-context: a\ncontexts: [{name: a, context: {cluster: a, user: a}}]\n"
        "clusters: [{name: a, cluster: {server: 'http://127.0.0.1:1'}}]\nusers: [{name: a, user: {token: t}}]\n"
    )
    done = _kaito("get", "pods", env={"KUBECONFIG": str(tmp_path / "config")})

    assert done.returncode == 1
    assert "http://127.0.0.1:1" in done.stderr
    assert "kaito up" in done.stderr


def test_an_expected_failure_has_its_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CliError's code becomes the process's; anything else is a bug, said to be one, with exit code 1."""
    for failure, code in ((CliError("x", exit_code=3), 3), (RuntimeError("boom"), 1)):

        def fail(failure: Exception = failure) -> None:
            raise failure

        monkeypatch.setattr(cli, "app", fail)
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert ended.value.code == code


def test_a_debug_run_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """With KAITO_DEBUG=1 the exception itself comes out."""

    def fail() -> None:
        raise CliError("x")

    monkeypatch.setattr(cli, "app", fail)
    monkeypatch.setenv("KAITO_DEBUG", "1")
    with pytest.raises(CliError):
        cli.main()


def test_control_c_exits_with_130(tmp_path: Path) -> None:
    """SIGINT while a command waits for its input ends it with 130 and no traceback."""
    process = subprocess.Popen(
        [sys.executable, "-m", "kaito", "apply", "-f", "-"],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=_ENV,
    )
    deadline = time.monotonic() + 30
    while not _reads(process.pid):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)

    assert process.returncode == 130
    assert "Traceback" not in said


def _reads(pid: int) -> bool:
    """Whether a process waits in a read of standard input."""
    return Path(f"/proc/{pid}/syscall").read_text().startswith("0 0x0 ")


def test_a_reader_that_leaves_is_no_error() -> None:
    """`kaito version | head -0` says nothing on standard error."""
    process = subprocess.Popen(
        [sys.executable, "-m", "kaito", "version"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=_ENV,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    said = process.stderr.read()
    process.stderr.close()
    process.wait(30)

    assert said == ""
