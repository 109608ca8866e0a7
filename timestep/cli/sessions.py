"""`timestep sessions`: list, show and delete conversations."""

from __future__ import annotations

import json
import shlex
from typing import Any

import click

from timestep.cli.output import TimeStyle, emit, emit_json, emit_table, format_time, json_option, note, time_option
from timestep.records import StoredSession

SHOWN_RUNS = 5
LONGEST_TEXT = 200


@click.group()
def command() -> None:
    """List, show and delete conversations.

    \b
    Example:
      timestep sessions show customer-7
    """


@command.command("list")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="At most so many.")
@time_option
@json_option
def list_command(limit: int, time_style: TimeStyle, as_json: bool) -> None:
    """List the conversations that have items, those first that were changed last.

    \b
    Example:
      timestep sessions list
    """
    from timestep.cli.connect import connect
    from timestep.client.sessions import list_sessions

    with connect() as connector:
        found = list_sessions(connector, limit=limit)
    if as_json:
        emit_json(found)
    elif not found:
        note("No sessions.")
    else:
        emit_table(
            ["ID", "ITEMS", "RUNS", "UNFINISHED", "CREATED", "CHANGED"],
            [
                [
                    each.session_id, each.items, each.runs, len(each.unfinished_run_ids),
                    format_time(each.created_at, time_style), format_time(each.updated_at, time_style),
                ]
                for each in found
            ],
        )  # fmt: skip


@command.command()
@click.argument("session_id", metavar="ID")
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="At most so many items.")
@time_option
@json_option
def show(session_id: str, limit: int, time_style: TimeStyle, as_json: bool) -> None:
    """Show a conversation: its runs, and the latest of its items.

    \b
    Example:
      timestep sessions show customer-7
    """
    from timestep.cli.connect import connect
    from timestep.client.sessions import get_session, list_session_items

    with connect() as connector:
        session = get_session(connector, session_id)
        items = list_session_items(connector, session_id, limit=limit)
    if as_json:
        emit_json({"session": session, "items": items})
        return
    emit_table(
        ["SESSION", session.session_id],
        [
            ["items", session.items],
            ["runs", _named(session)],
            ["created", format_time(session.created_at, time_style)],
            ["changed", format_time(session.updated_at, time_style)],
        ],
    )
    if items:
        emit()
        emit_table(["ITEM", "TEXT"], [_row(item) for item in items])


@command.command()
@click.argument("session_id", metavar="ID")
@click.option("--force", is_flag=True, help="Also when runs of it have not ended; they go on.")
@json_option
def delete(session_id: str, force: bool, as_json: bool) -> None:
    """Delete a conversation with its items, and say which runs are in it; the runs stay.

    \b
    Example:
      timestep sessions delete customer-7
    """
    from timestep.cli.connect import connect
    from timestep.client.sessions import delete_session

    with connect() as connector:
        session = delete_session(connector, session_id, force=force)
    if as_json:
        emit_json({"deleted": session.session_id, "session": session})
        return
    emit(f"{session.session_id}  deleted, {session.items} items")
    if session.runs:
        note(f"Its runs stay: {_named(session)}")
        note(f"  list them:  timestep runs list --session {shlex.quote(session.session_id)}")


def _named(session: StoredSession) -> str:
    """Return how many runs a session has and the newest of them, such as `2: order-44, order-43 (running)`."""
    unfinished = set(session.unfinished_run_ids)
    names = [f"{each} (not ended)" if each in unfinished else each for each in session.run_ids[:SHOWN_RUNS]]
    return ": ".join(part for part in (str(session.runs), ", ".join(names)) if part) + (
        " ..." if session.runs > len(names) else ""
    )


def _row(item: dict[str, Any]) -> list[str]:
    """Return who said an item, or its type, and its text on one line."""
    who, said = str(item.get("role") or item.get("type") or "-"), item.get("content")
    if isinstance(said, list):
        said = " ".join(str(part.get("text", part)) if isinstance(part, dict) else str(part) for part in said)
    if said is None:
        rest = {name: value for name, value in item.items() if name not in ("type", "id", "status")}
        said = json.dumps(rest, ensure_ascii=False)
    line = " ".join(str(said).split())
    return [who, line if len(line) <= LONGEST_TEXT else f"{line[: LONGEST_TEXT - 3]}..."]
