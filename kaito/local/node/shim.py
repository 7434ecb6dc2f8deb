"""The supervisor of one container: a small program of its own, started by the agent as `python -I -S shim.py
FD`.

In: `config.json` in the working directory (argv, env, cwd, tty, stdin) and a listening Unix socket,
inherited as FD. Out: `log` (one timestamped line per output line), `exit.json` (written before anybody is
told), and what the socket's clients ask for: `watch` (life events), `signal`, `kill`, `exec` (with three
passed descriptors), `attach`. It owns the process tree: as a child subreaper it inherits every orphan, so
when the main process ends it can kill all that is left, however often something forked or called setsid.

Why a process per container: the agent may be killed and started again. The shim keeps the pipes, the log
and the exit code meanwhile, and the new agent finds it through the socket. A watching client is the proof
that an agent lives; with none for `orphanSeconds` the shim stops the container and ends, so a cluster whose
agent was killed leaves nothing behind. A killed shim takes the main process along (PR_SET_PDEATHSIG). Only
the standard library, and little of it: this runs once per container.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import json
import os
import selectors
import signal
import socket
import struct
import sys
import termios
import time
from collections import deque
from typing import Any

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
STDIN, STDOUT, STDERR, EXITED, RESIZE, ATTACHED, CLOSE_STDIN = 0, 1, 2, 3, 4, 5, 255
FRAME = struct.Struct("!BI")
LINE_LIMIT = 16 * 1024  # a longer line is logged in parts, as container runtimes do
BUFFER_LIMIT = 256 * 1024  # beyond this the producer is no longer read
REPLAY_LIMIT = 64 * 1024  # output kept for the first client that attaches
STALL_SECONDS = 30.0  # an attached client that takes nothing for so long is dropped
REAP_SECONDS = 10.0
STOP_SECONDS = 10.0

_prctl = ctypes.CDLL(None, use_errno=True).prctl


def now_rfc3339() -> str:
    """Wall-clock time with nanoseconds, as the log and the container status write it."""
    ns = time.time_ns()
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(ns // 10**9)) + f".{ns % 10**9:09d}Z"


def write_json(path: str, value: object) -> None:
    """Replace `path` in one step; a reader sees the old file or the whole new one."""
    with open(path + ".tmp", "w") as f:  # noqa: PTH123 - pathlib costs this program's start 10 ms
        json.dump(value, f)
        f.flush()
        os.fsync(f.fileno())
    os.replace(path + ".tmp", path)  # noqa: PTH105


class Log:
    """Appends `<time> <stream> <P|F> <text>` lines and keeps one rotated file, `log.1`."""

    def __init__(self, path: str, max_bytes: int) -> None:
        self.path, self.max_bytes = path, max_bytes
        self.partial = {"stdout": bytearray(), "stderr": bytearray()}
        self._open()

    def _open(self) -> None:
        self.fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self.size = os.fstat(self.fd).st_size

    def _write(self, stream: str, tag: str, text: bytes) -> bytes:
        return f"{now_rfc3339()} {stream} {tag} ".encode() + text + b"\n"

    def feed(self, stream: str, data: bytes) -> None:
        rest = self.partial[stream]
        rest += data
        out = bytearray()
        while True:
            end = rest.find(b"\n", 0, LINE_LIMIT)
            if end >= 0:
                out += self._write(stream, "F", bytes(rest[:end]))
                del rest[: end + 1]
            elif len(rest) >= LINE_LIMIT:
                out += self._write(stream, "P", bytes(rest[:LINE_LIMIT]))
                del rest[:LINE_LIMIT]
            else:
                break
        self._append(bytes(out))

    def close(self) -> None:
        for stream, rest in self.partial.items():
            if rest:
                self._append(self._write(stream, "P", bytes(rest)))  # its last line had no end
        os.close(self.fd)

    def _append(self, out: bytes) -> None:
        if not out:
            return
        try:
            os.write(self.fd, out)
        except OSError:
            return  # a full disk must not stop the container
        self.size += len(out)
        if self.size > self.max_bytes:
            with contextlib.suppress(OSError):
                os.replace(self.path, self.path + ".1")  # noqa: PTH105
                os.close(self.fd)
                self._open()


def spawn(argv: list[str], env: dict[str, str], cwd: str, fds: tuple[int, int, int], tty: bool) -> int:
    """Fork and exec in a session of its own; raises OSError with the child's own error when exec fails."""
    report_r, report_w = os.pipe()
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            os.setsid()
            _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:
                os._exit(1)
            if tty:
                fcntl.ioctl(fds[0], termios.TIOCSCTTY, 0)
            # First out of the way of 0..2: a passed descriptor may be one of them.
            high = [fcntl.fcntl(fd, fcntl.F_DUPFD, 10) for fd in fds]
            for target, fd in enumerate(high):
                os.dup2(fd, target)
            report = fcntl.fcntl(report_w, fcntl.F_DUPFD_CLOEXEC, 20)
            os.closerange(3, report)
            os.closerange(report + 1, 256)
            for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
                signal.signal(number, signal.SIG_DFL)
            report_w = report
            os.chdir(cwd)
            os.execvpe(argv[0], argv, env)  # noqa: S606
        except OSError as err:
            os.write(report_w, json.dumps([err.errno, err.strerror, argv[0]]).encode())
        finally:
            os._exit(127)
    os.close(report_w)
    with os.fdopen(report_r, "rb") as pipe:
        failure = pipe.read()
    if failure:
        os.waitpid(pid, 0)
        number, text, name = json.loads(failure)
        raise OSError(number, text, name)
    return pid


class Client:
    """One connection: its mode, what it still has to be sent, what of its input is incomplete."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.mode = "new"  # new | watch | exec | attach | done
        self.out = bytearray()
        self.inbuf = bytearray()
        self.fds: list[int] = []
        self.pid = 0
        self.progress = time.monotonic()

    def send(self, value: object) -> None:
        self._queue(json.dumps(value).encode() + b"\n")

    def frame(self, kind: int, data: bytes) -> None:
        self._queue(FRAME.pack(kind, len(data)) + data)

    def _queue(self, data: bytes) -> None:
        if not self.out:
            self.progress = time.monotonic()
        self.out += data


class Shim:
    """The event loop; every method is called from it, and nothing in it blocks."""

    def __init__(self, listener: socket.socket, config: dict[str, Any]) -> None:
        self.listener = listener
        self.config = config
        self.selector = selectors.DefaultSelector()
        self.log = Log("log", config["logMaxBytes"])
        self.clients: set[Client] = set()
        self.tty: bool = config["tty"]
        self.main = 0
        self.started_at = ""
        self.stdin_fd = -1
        self.stdin_buf = bytearray()
        self.stdin_eof = False
        self.outputs: dict[int, int] = {}  # descriptor → STDOUT | STDERR
        self.paused = False
        self.replay: deque[tuple[int, bytes]] | None = deque() if config["stdin"] or self.tty else None
        self.replay_size = 0
        self.replay_lost = {STDOUT: 0, STDERR: 0}
        self.exit: dict[str, Any] | None = None
        self.reap_until = 0.0
        self.done = False
        self.last_seen = time.monotonic()  # when an agent was last watching
        self.kill_at: float | None = None

    # start and end of the container

    def start(self) -> None:
        config = self.config
        child: tuple[int, int, int]
        if self.tty:
            master, slave = os.openpty()
            child = (slave, slave, slave)
            self.outputs = {master: STDOUT}
            self.stdin_fd = master
        else:
            out_r, out_w = os.pipe()
            err_r, err_w = os.pipe()
            if config["stdin"]:
                in_r, self.stdin_fd = os.pipe()
            else:
                in_r = os.open(os.devnull, os.O_RDONLY)
            child = (in_r, out_w, err_w)
            self.outputs = {out_r: STDOUT, err_r: STDERR}
        for fd in {*self.outputs, self.stdin_fd} - {-1}:
            os.set_blocking(fd, False)
            os.set_inheritable(fd, False)
        self.started_at = now_rfc3339()
        try:
            self.main = spawn(config["argv"], config["env"], config["cwd"], child, self.tty)
        except OSError as err:
            text = f'exec: "{err.filename}": {(err.strerror or "failed").lower()}'
            code = 127 if err.errno == errno.ENOENT else 126
            self.exit = self._exit_record(128, 0, "StartError", f"{text} (exit code {code} in a shell)")
        for fd in set(child):
            os.close(fd)
        for fd in self.outputs:
            self.selector.register(fd, selectors.EVENT_READ, self.on_output)
        self.selector.register(self.listener, selectors.EVENT_READ, self.on_accept)
        if self.exit is None:
            write_json("started.json", {"pid": self.main, "startedAt": self.started_at})
        else:
            self.reap_until = time.monotonic()

    def _exit_record(self, code: int, signo: int, reason: str, message: str = "") -> dict[str, Any]:
        return {
            "exitCode": code,
            "signal": signo,
            "reason": reason,
            "message": message,
            "startedAt": self.started_at,
            "finishedAt": now_rfc3339(),
        }

    def reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            code = os.waitstatus_to_exitcode(status)
            signo, code = (-code, 128 - code) if code < 0 else (0, code)
            if pid == self.main:
                self.exit = self._exit_record(code, signo, "Completed" if code == 0 else "Error")
                self.reap_until = time.monotonic() + REAP_SECONDS
            for client in self.clients:
                if client.pid == pid:
                    client.pid = 0
                    client.mode = "done"
                    client.send({"exitCode": code})

    def children(self) -> list[int]:
        with open(f"/proc/self/task/{os.getpid()}/children") as f:  # noqa: PTH123
            return [int(word) for word in f.read().split()]

    def finish(self) -> None:
        """After the main process: kill what it left, take the last output, tell everybody."""
        left = self.children()
        if left and time.monotonic() < self.reap_until:
            for pid in left:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            return
        for fd in list(self.outputs):
            while fd in self.outputs and self.on_output(fd):
                pass
        self.log.close()
        write_json("exit.json", self.exit)
        for client in self.clients:
            if client.mode == "watch":
                client.send({"event": "exited", **(self.exit or {})})
            elif client.mode == "attach":
                client.frame(EXITED, json.dumps(self.exit).encode())
        self.done = True

    # output and input of the main process

    def on_output(self, fd: int) -> bool:
        """Read once; False when there is nothing to read now."""
        try:
            data = os.read(fd, 65536)
        except BlockingIOError:
            return False
        except OSError:  # a pty whose other end is closed says EIO
            data = b""
        if not data:
            with contextlib.suppress(KeyError):
                self.selector.unregister(fd)
            del self.outputs[fd]
            if fd == self.stdin_fd:
                self.close_stdin()
            else:
                os.close(fd)
            return False
        kind = self.outputs[fd]
        self.log.feed("stdout" if kind == STDOUT else "stderr", data)
        attached = [c for c in self.clients if c.mode == "attach"]
        for client in attached:
            client.frame(kind, data)
        if not attached and self.replay is not None:
            self.replay.append((kind, data))
            self.replay_size += len(data)
            while self.replay_size > REPLAY_LIMIT:
                old_kind, old = self.replay.popleft()
                self.replay_size -= len(old)
                self.replay_lost[old_kind] += len(old)
        return True

    def close_stdin(self) -> None:
        if self.stdin_fd < 0:
            return
        with contextlib.suppress(KeyError):
            self.selector.unregister(self.stdin_fd)
        os.close(self.stdin_fd)
        self.stdin_fd = -1
        self.stdin_buf.clear()

    def on_stdin_writable(self) -> None:
        if self.stdin_fd < 0:
            self.stdin_buf.clear()
            return
        if self.stdin_buf:
            try:
                sent = os.write(self.stdin_fd, self.stdin_buf[:4096] if self.tty else self.stdin_buf)
            except BlockingIOError:
                return
            except OSError:
                self.stdin_buf.clear()
                self.stdin_eof = True
            else:
                del self.stdin_buf[:sent]
        if not self.stdin_buf and self.stdin_eof and not self.tty:
            self.close_stdin()

    # clients

    def on_accept(self, _fd: object) -> None:
        try:
            sock, _ = self.listener.accept()
        except OSError:
            return
        sock.setblocking(False)
        client = Client(sock)
        self.clients.add(client)
        self.selector.register(sock, selectors.EVENT_READ, client)

    def drop(self, client: Client) -> None:
        self.clients.discard(client)
        with contextlib.suppress(KeyError, ValueError):
            self.selector.unregister(client.sock)
        client.sock.close()
        for fd in client.fds:
            os.close(fd)
        if client.mode == "watch":
            self.last_seen = time.monotonic()
        elif client.mode == "exec" and client.pid:
            with contextlib.suppress(OSError):
                os.killpg(client.pid, signal.SIGKILL)  # whoever asked for it has gone
        elif client.mode == "attach" and self.config["stdinOnce"]:
            self.stdin_eof = True

    def on_client(self, client: Client) -> None:
        try:
            if client.mode == "new":
                data, fds, _flags, _addr = socket.recv_fds(client.sock, 65536, 3)
                client.fds += fds
            else:
                data = client.sock.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.drop(client)
            return
        client.inbuf += data
        if client.mode == "new" and b"\n" in client.inbuf:
            line, _, rest = bytes(client.inbuf).partition(b"\n")
            client.inbuf = bytearray(rest)
            self.on_request(client, json.loads(line))
        if client.mode == "attach":
            self.on_attach_input(client)

    def on_request(self, client: Client, request: dict[str, Any]) -> None:
        op = request["op"]
        if op == "watch":
            client.mode = "watch"
            client.send({"event": "started", "pid": self.main, "startedAt": self.started_at})
        elif op in ("signal", "kill"):
            if self.main and self.exit is None:
                with contextlib.suppress(OSError):
                    os.kill(self.main, signal.SIGKILL if op == "kill" else request["signal"])
            client.mode = "done"
            client.send({})
        elif op == "exec":
            self.on_exec(client, request)
        elif op == "attach":
            client.mode = "attach"
            client.frame(ATTACHED, b"")  # without it, the container ended before it could be attached to
            self.send_replay(client, request.get("seen", {}))

    def send_replay(self, client: Client, seen: dict[str, int]) -> None:
        """What was printed before anybody attached, less the first bytes that the client has seen in the log."""
        skip = {STDOUT: seen.get("stdout", 0), STDERR: seen.get("stderr", 0)}
        for kind, lost in self.replay_lost.items():
            skip[kind] = max(0, skip[kind] - lost)
        for kind, data in self.replay or ():
            cut = min(skip[kind], len(data))
            skip[kind] -= cut
            if data[cut:]:
                client.frame(kind, data[cut:])
        self.replay = None

    def on_exec(self, client: Client, request: dict[str, Any]) -> None:
        client.mode = "exec"
        fds, client.fds = client.fds, []
        if self.exit is not None or len(fds) != 3:
            client.mode = "done"
            client.send({"error": "container is not running", "file": ""})
            for fd in fds:
                os.close(fd)
            return
        first, second, third = fds
        try:
            env = {**self.config["env"], **request.get("env", {})}
            argv = request["argv"]
            client.pid = spawn(argv, env, self.config["cwd"], (first, second, third), request["tty"])
            client.send({"pid": client.pid})
        except OSError as err:
            client.mode = "done"
            client.send({"error": (err.strerror or "failed").lower(), "file": str(err.filename)})
        finally:
            for fd in fds:
                os.close(fd)

    def on_attach_input(self, client: Client) -> None:
        buf = client.inbuf
        while len(buf) >= FRAME.size:
            kind, length = FRAME.unpack_from(buf)
            if len(buf) < FRAME.size + length:
                return
            data = bytes(buf[FRAME.size : FRAME.size + length])
            del buf[: FRAME.size + length]
            if kind == STDIN and self.stdin_fd >= 0 and not self.stdin_eof:
                self.stdin_buf += data
            elif kind == CLOSE_STDIN and self.config["stdinOnce"]:
                self.stdin_eof = True
            elif kind == RESIZE and self.tty and self.stdin_fd >= 0:
                rows, columns = struct.unpack("!HH", data)
                with contextlib.suppress(OSError):
                    size = struct.pack("HHHH", rows, columns, 0, 0)
                    fcntl.ioctl(self.stdin_fd, termios.TIOCSWINSZ, size)

    def flush(self, client: Client) -> None:
        if client.out:
            try:
                sent = client.sock.send(client.out)
            except BlockingIOError:
                sent = 0
            except OSError:
                self.drop(client)
                return
            if sent:
                del client.out[:sent]
                client.progress = time.monotonic()
            elif time.monotonic() - client.progress > STALL_SECONDS:
                self.drop(client)
                return
        if not client.out and client.mode == "done":
            self.drop(client)
            return
        events = selectors.EVENT_WRITE if client.out else 0
        if client.mode != "attach" or len(self.stdin_buf) < BUFFER_LIMIT:
            events |= selectors.EVENT_READ
        if events:
            try:
                self.selector.modify(client.sock, events, client)
            except KeyError:
                self.selector.register(client.sock, events, client)
        else:
            with contextlib.suppress(KeyError):
                self.selector.unregister(client.sock)

    # the loop

    def stop(self) -> None:
        """Nobody watches any more, or the shim itself was told to end: TERM now, KILL a little later."""
        if self.kill_at is None and self.exit is None:
            with contextlib.suppress(OSError):
                os.kill(self.main, signal.SIGTERM)
            self.kill_at = time.monotonic() + min(STOP_SECONDS, self.config["graceSeconds"])

    def check_timers(self) -> None:
        now = time.monotonic()
        if any(c.mode == "watch" for c in self.clients):
            self.last_seen = now
        elif now - self.last_seen > self.config["orphanSeconds"]:
            self.stop()
        if self.kill_at is not None and now >= self.kill_at and self.exit is None:
            with contextlib.suppress(OSError):
                os.kill(self.main, signal.SIGKILL)

    def pause_outputs(self) -> None:
        """A slow attached client slows the container down, as a slow terminal does, instead of filling memory."""
        want = any(len(c.out) > BUFFER_LIMIT for c in self.clients if c.mode == "attach")
        if want == self.paused:
            return
        self.paused = want
        for fd in self.outputs:
            if want:
                with contextlib.suppress(KeyError):
                    self.selector.unregister(fd)
            else:
                self.selector.register(fd, selectors.EVENT_READ, self.on_output)

    def arm_stdin(self) -> None:
        if self.stdin_fd < 0 or self.tty:
            # A pty shares its descriptor with the output: it is written when there is input, and retried by timer.
            if self.stdin_buf:
                self.on_stdin_writable()
            return
        if self.stdin_buf or self.stdin_eof:
            with contextlib.suppress(KeyError):
                self.selector.register(self.stdin_fd, selectors.EVENT_WRITE, "stdin")
        else:
            with contextlib.suppress(KeyError):
                self.selector.unregister(self.stdin_fd)

    def run(self) -> None:
        wake_r, wake_w = socket.socketpair()
        wake_r.setblocking(False)
        wake_w.setblocking(False)
        signal.set_wakeup_fd(wake_w.fileno())
        stopping: list[int] = []
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, lambda *_: stopping.append(1))
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        self.selector.register(wake_r, selectors.EVENT_READ, "wake")
        self.start()
        while not self.done or any(c.out for c in self.clients):
            busy = self.exit is not None and not self.done
            timeout = 0.02 if busy or (self.tty and self.stdin_buf) else 1.0
            for key, events in self.selector.select(timeout):
                if key.data == "wake":
                    with contextlib.suppress(BlockingIOError):
                        wake_r.recv(4096)
                elif key.data == "stdin":
                    self.on_stdin_writable()
                elif isinstance(key.data, Client):
                    if events & selectors.EVENT_READ and key.data in self.clients:
                        self.on_client(key.data)
                else:
                    key.data(key.fd)
            self.reap()
            if stopping:
                self.stop()
            self.check_timers()
            self.arm_stdin()
            if self.exit is not None and not self.done:
                self.finish()
            for client in list(self.clients):
                self.flush(client)
            if not self.done:
                self.pause_outputs()


def main() -> None:
    """Serve one container until it has ended and everybody who listens knows."""
    with open("config.json") as f:  # noqa: PTH123
        config: dict[str, Any] = json.load(f)
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    Shim(socket.socket(fileno=int(sys.argv[1])), config).run()


if __name__ == "__main__":
    main()
