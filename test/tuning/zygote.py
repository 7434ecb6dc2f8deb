"""Starts `kaito tune` quickly: a process that has imported torch, and forks one child for each run.

In: JSON lines on standard input. {"run": argv, "log": path, "fsize": bytes} forks a child that is the kaito
command and answers {"pid": n}; {"wait": pid} answers {"code": n} when it has ended (negative: the signal that
killed it). Nothing has been computed when a child is forked, so a child is a fresh program in every way that
counts.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from typing import Any


def main() -> None:
    import inference_server.tuning.corpus
    import inference_server.tuning.model
    import inference_server.tuning.run
    import inference_server.tuning.train  # noqa: F401
    import kaito.cli

    answer({"ready": True})
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            _, status = os.waitpid(request["wait"], 0)
            answer({"code": os.waitstatus_to_exitcode(status)})
            continue
        pid = os.fork()
        if pid == 0:
            child(request, kaito.cli.main)
        answer({"pid": pid})


def child(request: dict[str, Any], command: Any) -> None:
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    if request.get("fsize"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (request["fsize"], request["fsize"]))
    sys.argv = ["kaito", *request["run"]]
    code = 1
    try:
        command()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def answer(value: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
