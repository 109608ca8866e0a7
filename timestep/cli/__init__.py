"""The command line: `timestep`.

One file a command group, loaded when it is used: each module of the table holds a click command named
`command`. Data goes to stdout, everything else to stderr. A command ends with another exit code than 0 by
raising a `TimestepError` or by `context.exit(ExitCode...)`.
"""

from __future__ import annotations

import gc
import importlib
import io
import os
import select
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from timestep.cli.errors import ExitCode, show_error, show_exception

COMMANDS: dict[str, tuple[str, str]] = {
    "run": ("timestep.cli.run", "Run an agent and stream its answer."),
    "runs": ("timestep.cli.runs", "List, show, follow, cancel and resume runs."),
    "approvals": ("timestep.cli.approvals", "List what runs wait for, and decide it."),
    "queues": ("timestep.cli.queues", "List, make, pause and resume queues."),
    "schedules": ("timestep.cli.schedules", "List, make, pause, trigger and backfill schedules."),
    "sessions": ("timestep.cli.sessions", "List, show and delete conversations."),
    "usage": ("timestep.cli.usage", "Sum up the tokens and the cost of model calls."),
    "models": ("timestep.cli.models", "List the models of the providers, and try one."),
    "executors": ("timestep.cli.executors", "List the processes that execute runs."),
    "worker": ("timestep.cli.worker", "Execute runs with the agents of a module."),
    "demo": ("timestep.cli.demo", "Watch a run survive kill -9."),
    "db": ("timestep.cli.db", "Start, stop, migrate and open the database."),
    "doctor": ("timestep.cli.doctor", "Print every setting and check that all is ready."),
    "help": ("timestep.cli.help", "Explain a command, or the exit codes."),
}
"""Command names, the module of each, and its line of help."""

_COMPLETION_VARIABLE = "_TIMESTEP_COMPLETE"

_GC_THRESHOLDS = (50_000, 20, 20)
"""What is imported stays: to look through it as often as the interpreter does takes a tenth of a command's time."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and end the process with its exit code."""
    gc.set_threshold(*_GC_THRESHOLDS)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    sys.exit(run_command_line(sys.argv[1:] if arguments is None else arguments))


def run_command_line(arguments: Sequence[str]) -> int:
    """Run the command line, show what went wrong, and return the exit code."""
    context: click.Context | None = None
    try:
        if _COMPLETION_VARIABLE in os.environ:
            return _complete()
        with command.make_context("timestep", list(arguments)) as context:
            command.invoke(context)
        sys.stdout.flush()
    except click.exceptions.Exit as ending:
        return ending.exit_code
    except (KeyboardInterrupt, EOFError, click.Abort):
        return ExitCode.INTERRUPTED
    except click.ClickException as error:
        return _show_usage_error(error)
    except Exception as error:  # noqa: BLE001 - the outermost door: every error is shown with a hint
        if not isinstance(error, BrokenPipeError) or not _is_stdout_closed():
            return show_exception(error, is_debug=_is_debug(context))
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return ExitCode.DONE


class LazyGroup(click.Group):
    """A group that imports the module of a command when the command is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        loaded: click.Command = importlib.import_module(COMMANDS[cmd_name][0]).command
        _add_shared_options(loaded)
        return loaded

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in COMMANDS and not args[0].startswith("-") and not ctx.resilient_parsing:
            import difflib

            near = difflib.get_close_matches(args[0], COMMANDS)
            guess = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
            ctx.fail(f"No such command {args[0]!r}.{guess}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


def _show_version(context: click.Context, _: click.Parameter, value: bool) -> None:
    if not value or context.resilient_parsing:
        return
    from importlib import metadata

    try:
        version = metadata.version("timestep")
    except metadata.PackageNotFoundError:
        version = "unknown (not installed)"
    click.echo(f"timestep {version}")
    context.exit()


def _keep(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value:
        context.meta[f"timestep.{parameter.name}"] = True
    if parameter.name == "no_color" and (value or os.environ.get("NO_COLOR")):
        context.color = False


def _shared_options() -> list[click.Option]:
    return [
        click.Option([name], is_flag=True, expose_value=False, callback=_keep, help=text)
        for name, text in (
            ("--quiet", "Print data and errors only."),
            ("--no-color", "Print without colours; so does NO_COLOR=1."),
            ("--debug", "Print a traceback with an error."),
        )
    ]


@click.group(cls=LazyGroup, no_args_is_help=True, params=_shared_options())
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Print the version.",
)
def command() -> None:
    """Durable AI agents on Postgres: runs that survive their process.

    \b
    Example:
      timestep demo
    """


def _add_shared_options(added_to: click.Command) -> None:
    """Let `--quiet`, `--no-color` and `--debug` stand after any command, too."""
    known = {name for parameter in added_to.params for name in parameter.opts}
    if not added_to.context_settings.get("ignore_unknown_options"):
        added_to.params += [option for option in _shared_options() if option.opts[0] not in known]
    if isinstance(added_to, click.Group):
        for inner in added_to.commands.values():
            _add_shared_options(inner)


def _is_debug(context: click.Context | None) -> bool:
    return bool(context and context.meta.get("timestep.debug"))


def _show_usage_error(error: click.ClickException) -> int:
    context = error.ctx if isinstance(error, click.UsageError) else None
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        is_root = error.ctx.parent is None
        click.echo(error.ctx.get_help(), err=not is_root)
        return ExitCode.DONE if is_root else ExitCode.BAD_USAGE
    path = context.command_path if context else "timestep"
    show_error(error.format_message(), f"See `{path} --help`.")
    return error.exit_code


def _is_stdout_closed() -> bool:
    if not hasattr(select, "poll"):
        return True
    try:
        poll: Any = select.poll()
        poll.register(sys.stdout.fileno(), 0)
    except (OSError, ValueError):
        return True
    return bool(poll.poll(0))


def _complete() -> int:
    from click.shell_completion import shell_complete

    return shell_complete(command, {}, "timestep", _COMPLETION_VARIABLE, os.environ[_COMPLETION_VARIABLE])
