"""`timestep help`: a command, or a topic."""

from __future__ import annotations

import click

from timestep.cli.errors import EXIT_CODE_MEANINGS
from timestep.cli.output import emit_table


@click.command()
@click.argument("words", nargs=-1, metavar="[COMMAND...|exit-codes]")
@click.pass_context
def command(context: click.Context, words: tuple[str, ...]) -> None:
    """Explain a command, or the exit codes.

    \b
    Examples:
      timestep help runs
      timestep help exit-codes
    """
    if words == ("exit-codes",):
        emit_table(["CODE", "MEANING"], [[int(code), text] for code, text in EXIT_CODE_MEANINGS.items()])
        return
    explained = context.find_root()
    for word in words:
        group = explained.command
        found = group.get_command(explained, word) if isinstance(group, click.Group) else None
        if found is None:
            raise click.UsageError(f"There is no command or topic {' '.join(words)!r}.", context)
        explained = click.Context(found, info_name=word, parent=explained)
    click.echo(explained.get_help())
