"""The ``kaito`` command: its sub-commands, and the one place where failures become words and exit codes.

Exit codes: 0 done, 1 failed, 2 unusable arguments, 3 a wait timed out, 130 interrupted.
``KAITO_DEBUG=1`` shows tracebacks.
"""

from __future__ import annotations

import os
import sys

import typer

from kaito.commands import (
    apiserver,
    apply,
    audit,
    chat,
    delete,
    doctor,
    explain,
    fakeazure,
    get,
    history,
    logs,
    manager,
    node,
    plan,
    presets,
    registry,
    rollback,
    serve,
    skus,
    tune,
    up,
    version,
)

app = typer.Typer(
    name="kaito",
    help="Turn a short Workspace manifest into a running LLM endpoint on Kubernetes.",
    epilog="Start with `kaito demo`: the whole path in under a minute, on this machine.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_TRY = "On this machine"
_PLAN = "Without a cluster"
_USE = "With any cluster"
_RUN = "Run by clusters"

app.command(rich_help_panel=_TRY)(up.demo)
app.command(rich_help_panel=_TRY)(up.up)
app.command(rich_help_panel=_TRY)(up.down)
app.command(rich_help_panel=_PLAN, epilog=plan.EXAMPLES)(plan.plan)
app.add_typer(presets.app, name="presets", rich_help_panel=_PLAN)
app.add_typer(skus.app, name="skus", rich_help_panel=_PLAN)
app.command(rich_help_panel=_USE)(apply.apply)
app.command(rich_help_panel=_USE)(get.get)
app.command(rich_help_panel=_USE, epilog=explain.EXAMPLES)(explain.explain)
app.command(rich_help_panel=_USE)(chat.chat)
app.command(rich_help_panel=_USE)(logs.logs)
app.command(rich_help_panel=_USE)(history.history)
app.command(rich_help_panel=_USE, epilog=rollback.EXAMPLES)(rollback.rollback)
app.command(rich_help_panel=_USE)(delete.delete)
app.command(rich_help_panel=_USE, epilog=audit.EXAMPLES)(audit.audit)
app.command(rich_help_panel=_USE, epilog=doctor.EXAMPLES)(doctor.doctor)
app.command(rich_help_panel=_USE)(version.version)
app.command(rich_help_panel=_RUN)(manager.manager)
app.command(rich_help_panel=_RUN, context_settings={"allow_extra_args": True})(serve.serve)
app.command(rich_help_panel=_RUN, epilog=tune.EXAMPLES)(tune.tune)
app.command(rich_help_panel=_RUN)(node.node)
app.command(rich_help_panel=_RUN)(apiserver.apiserver)
app.command(rich_help_panel=_RUN)(registry.registry)
app.command(rich_help_panel=_RUN, epilog=fakeazure.EXAMPLES)(fakeazure.fake_azure)


def main() -> None:
    """Entry point of the console script."""
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # `kaito get ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as failure:
        if os.environ.get("KAITO_DEBUG"):
            raise
        sys.exit(_explain(failure))


def _explain(failure: Exception) -> int:
    from kaito.console import error
    from kaito.errors import CliError

    if isinstance(failure, CliError):
        error(failure.message, failure.next_step, failure.title)
        return failure.exit_code
    error(f"unexpected {type(failure).__name__}: {failure}", "this is a bug of kaito's; KAITO_DEBUG=1 shows where")
    return 1
