"""An inference server that has no model: a process per pod at a hundredth of the weight of `kaito serve`.

In: the words that the operator puts behind `kaito serve` (`--host`, `--port`), and HTTP requests. Out: what the
operator and the kubelet ask a server for: `/healthz`, `/v1/progress`, `/v1/adapters`, `/chat`. It fails when it is
told to: a pod whose name begins with `fails-` ends with exit code 1 as a server without an engine does, and
`POST /stub/fail?how=exit` or `?how=unhealthy` makes one that runs end, or answer its probes with 500.

Only built-in modules, and `_socket` in place of `socket`: started with `python -I -S`, it is up in the time that
the interpreter itself takes, so that a thousand of them fit on a laptop.
"""

import _socket
import sys
from posix import _exit, environ, write

_REQUEST_LIMIT = 64 * 1024
_HTTP = {200: b"200 OK", 404: b"404 Not Found", 500: b"500 Internal Server Error"}
_ANSWERS = {
    b"/v1/progress": b'{"stage":"Ready","message":""}',
    b"/v1/adapters": b'{"revision":"","adapters":[]}',
    b"/chat": b'{"Result":"a stub has nothing to say"}',
}


def _fail(why: str) -> None:
    write(2, f"error: {why}\n".encode())
    _exit(1)


class _Stub:
    def __init__(self) -> None:
        self.healthy = True

    def answer(self, target: bytes) -> tuple[int, bytes]:
        """Status and body."""
        path, _, query = target.partition(b"?")
        if path == b"/healthz":
            return (200, b"ok") if self.healthy else (500, b"the stub was told to be unhealthy")
        if path == b"/stub/fail":
            if query == b"how=exit":
                _fail("the stub was told to end")
            self.healthy = False
            return 200, b""
        return (200, _ANSWERS[path]) if path in _ANSWERS else (404, b"")

    def serve(self, host: str, port: int) -> None:
        """For ever, one request at a time; each connection carries one."""
        listener = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)
        listener.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(16)
        while True:
            handle, _ = listener._accept()  # type: ignore[attr-defined]  # what socket.accept is made of
            connection = _socket.socket(fileno=handle)
            connection.settimeout(5)
            try:
                words = _head(connection).split(b" ", 2)
                status, body = self.answer(words[1]) if len(words) == 3 else (404, b"")
                head = b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n"
                connection.sendall((head % (_HTTP[status], len(body))) + b"Connection: close\r\n\r\n" + body)
            except OSError:
                pass  # the client has gone, or says nothing
            finally:
                connection.close()


def _head(connection: _socket.socket) -> bytes:
    """The first bytes of a request up to the end of its head; its body does not matter here."""
    data = b""
    while b"\r\n\r\n" not in data and len(data) < _REQUEST_LIMIT:
        more = connection.recv(8192)
        if not more:
            break
        data += more
    return data


def _option(name: str, default: str) -> str:
    for word in sys.argv[1:]:
        if word.startswith(f"--{name}="):
            return word.partition("=")[2]
    return default


if __name__ == "__main__":
    if environ.get(b"HOSTNAME", b"").startswith(b"fails-"):
        _fail("the stub of this pod always fails")
    _Stub().serve(_option("host", "127.0.0.1"), int(_option("port", "5000")))
