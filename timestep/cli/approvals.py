"""`timestep approvals`: what runs wait for, and the decisions."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import click

from timestep.cli.output import (
    clean,
    coloured,
    emit,
    emit_json,
    emit_table,
    format_duration,
    format_time,
    json_option,
    note,
)
from timestep.cli.runs.decide import by_option, take_decision
from timestep.records import Approval, Run
from timestep.words import OUTCOME_UNKNOWN, ApprovalStatus, kind_of_approval

_COLOURS: dict[ApprovalStatus, str] = {
    "open": "yellow",
    "approved": "green",
    "answered": "green",
    "rejected": "red",
    "expired": "magenta",
}


@click.group()
def command() -> None:
    """List what runs wait for, and decide it.

    The first decision holds. When nothing of a run is open any more, the run goes on by itself.

    \b
    Example:
      timestep approvals list
    """


@command.command("list")
@click.option("--run", "run_id", metavar="ID", help="Of this run.")
@click.option("--all", "is_all", is_flag=True, help="Also what was decided, after what waits.")
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="How many at most.")
@json_option
def list_command(run_id: str | None, is_all: bool, limit: int, as_json: bool) -> None:
    """Print what runs wait for, the oldest first.

    \b
    Example:
      timestep approvals list --run order-43 --all
    """
    from timestep.cli.connect import connect
    from timestep.client.approvals import list_approvals
    from timestep.client.asked import short_id, summary
    from timestep.client.runs import full_run_id

    with connect() as connector:
        full_id = None if run_id is None else full_run_id(connector, run_id)
        found = list_approvals(connector, full_id, limit=limit + 1)
        if is_all:
            waiting = {each.id for each in found}
            every = list_approvals(connector, full_id, is_waiting=False, limit=limit + 1 + len(found))
            found += [each for each in every if each.id not in waiting]
    if as_json:
        emit_json(found[:limit])
        return
    if not found:
        whose = "" if full_id is None else f" of run {full_id}"
        note(f"There are no approvals{whose}." if is_all else f"No approval{whose} waits.")
        return
    now = datetime.now(UTC)
    emit_table(
        ["ID", "RUN", "KIND", "AGENT", "TOOL", "ASKED FOR", "AGE", "EXPIRES", *(["STATUS", "BY"] if is_all else [])],
        [
            [
                short_id(each),
                each.run_id,
                each.kind,
                each.agent,
                each.tool,
                summary(each),
                _age(each, now),
                _expiry(each, now),
                *([each.status, each.decided_by] if is_all else []),
            ]
            for each in found[:limit]
        ],
    )
    if len(found) > limit:
        note(f"There are more: timestep approvals list --limit {2 * limit}")


@command.command()
@click.argument("approval_id", metavar="ID")
@json_option
def show(approval_id: str, as_json: bool) -> None:
    """Print everything that is known of one approval: all arguments, and the decision.

    ID is that of the approval, or of a run that waits for one decision; a prefix is enough.

    \b
    Example:
      timestep approvals show 3f2a91c0
    """
    from timestep.cli.connect import connect
    from timestep.cli.runs.asked import commands
    from timestep.client.approvals import find_asked, open_approvals
    from timestep.client.runs import get_run

    with connect() as connector:
        found = find_asked(connector, approval_id)
        run = get_run(connector, found.run_id)
        asked = open_approvals(connector, found.run_id)
    if as_json:
        emit_json(found)
        return
    _emit_approval(found, run)
    if found.status == "open" and run.status == "interrupted":
        emit()
        for line in commands(found, asked):
            emit(line)


@command.command()
@click.argument("approval_id", metavar="ID")
@click.argument("call_id", metavar="[CALL_ID]", required=False)
@by_option
@click.option("--always", is_flag=True, help="Also every further call of this tool by this agent in this run.")
def approve(approval_id: str, call_id: str | None, by: str, always: bool) -> None:
    """Let a call that waits run.

    ID is that of the approval, a prefix is enough; or that of the run, with the CALL_ID when several calls wait.
    What is approved are the arguments that are stored now: look at them with `timestep approvals show`.

    \b
    Examples:
      timestep approvals approve 3f2a91c0
      timestep approvals approve order-43 call_7 --always
    """
    from timestep.client.approvals import approval

    take_decision(approval_id, call_id, approval(by=by, always=always))


@command.command()
@click.argument("approval_id", metavar="ID")
@click.argument("call_id", metavar="[CALL_ID]", required=False)
@by_option
@click.option("--reason", metavar="TEXT", help="What the model is told.")
@click.option("--always", is_flag=True, help="Also every further call of this tool by this agent in this run.")
def reject(approval_id: str, call_id: str | None, by: str, reason: str | None, always: bool) -> None:
    """Refuse what waits: the call never runs, and the model is told.

    A run that waits for a limit, or for an unknown outcome, fails. ID and CALL_ID as for `approve`.

    \b
    Example:
      timestep approvals reject 3f2a91c0 --reason "Too much; ask for half."
    """
    from timestep.client.approvals import rejection

    take_decision(approval_id, call_id, rejection(by=by, reason=reason, always=always))


def _emit_approval(found: Approval, run: Run) -> None:
    status = run.status if run.reason is None else f"{run.status}, {run.reason}"
    details: dict[str, Any] = found.details or {}
    fields: list[tuple[str, object]] = [
        ("approval", found.id),
        ("kind", found.kind),
        ("run", f"{found.run_id} ({status})"),
        ("session", found.session_id),
        ("agent", found.agent),
        ("tool", found.tool),
        ("call", found.call_id),
        ("asked", _moment(found.asked_at)),
        ("status", _decision(found)),
        ("reason", found.reason),
        ("answer", _answer(found)),
        ("expires", _expiry_text(found)),
        ("question", details.get("question")),
        ("choices", ", ".join(map(str, details.get("choices") or ()))),
    ]
    about = kind_of_approval(found.kind).about
    if about == "limits":
        fields += [("limit", f"{details.get('limit')}={details.get('value')}"), ("used", details.get("used"))]
        fields += [("message", details.get("message"))]
    if found.kind == OUTCOME_UNKNOWN:
        fields += [("key", f"{found.run_id}:{found.call_key}"), ("attempt", details.get("attempt"))]
        fields += [("started", details.get("started_at"))]
    if about != "limits":
        fields += [("digest", found.arguments_digest)]
    width = max(len(name) for name, _ in fields)
    for name, value in fields:
        if value not in (None, ""):
            text = str(value)
            emit(f"{name:<{width}}  {coloured(text, _COLOURS[found.status]) if name == 'status' else clean(text)}")
    if about != "limits":
        emit("arguments")
        for line in _pretty(found.arguments):
            emit(f"  {line}")


def _decision(found: Approval) -> str:
    if found.status == "open":
        return "open"
    by = f" by {clean(found.decided_by)}" if found.decided_by else ""
    sticky = ", for every further call of this tool by this agent in this run" if found.is_sticky else ""
    return f"{found.status}{by}, {_moment(found.decided_at)}{sticky}"


def _answer(found: Approval) -> str | None:
    if found.answer is None or isinstance(found.answer, str):
        return found.answer
    return json.dumps(found.answer, ensure_ascii=False)


def _moment(moment: datetime | None) -> str:
    return f"{format_time(moment, 'iso')} ({format_time(moment)})" if moment is not None else ""


def _expiry_text(found: Approval) -> str | None:
    if found.expires_at is None:
        return None
    then = "the run fails" if found.on_expiry == "fail" else "the call is rejected"
    return f"{_moment(found.expires_at)}; then {then}"


def _age(found: Approval, now: datetime) -> str:
    if found.asked_at is None:
        return ""
    return format_duration(max(0.0, (now - found.asked_at).total_seconds()))


def _expiry(found: Approval, now: datetime) -> str:
    if found.expires_at is None or found.status != "open":
        return ""
    return "over" if found.expires_at <= now else format_time(found.expires_at, now=now)


def _pretty(arguments: str) -> list[str]:
    """Return arguments as indented JSON, or as they are when that would hide something of them."""
    try:
        value = json.loads(arguments or "{}", object_pairs_hook=_distinct)
    except (ValueError, RecursionError):
        return [_safe(line) for line in arguments.splitlines()] or [""]
    return [_safe(line) for line in json.dumps(value, indent=2, ensure_ascii=False).splitlines()]


def _distinct(pairs: list[tuple[str, object]]) -> dict[str, object]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a name is given twice")
    return fields


def _safe(line: str) -> str:
    """Return a line with its spaces, and with what could steer a terminal escaped."""
    return "".join(clean(char) if not char.isspace() else " " for char in line)
