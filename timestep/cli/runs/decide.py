"""How commands take a decision: who decides, the verbs of `timestep runs` for it, and what happens next."""

from __future__ import annotations

import asyncio
import json
import math
import shlex
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

import click

from timestep.cli.output import note
from timestep.errors import InvalidInputError
from timestep.records import Approval, RunLimits
from timestep.words import ApprovalKind, kind_of_approval, kinds_decided_by

if TYPE_CHECKING:
    from timestep.cli.connect import Desk
    from timestep.store.connection import Database

F = TypeVar("F", bound=Callable[..., Any])
Verb = Callable[[Approval, "Database"], Coroutine[Any, Any, Approval]]


def by_option(function: F) -> F:
    """Give a deciding command the option `--by`, as the argument `by`: a name, never empty."""
    text = "Who decides; your login name when absent."
    return click.option("--by", metavar="NAME", callback=_decider, help=text)(function)


def call_option(function: F) -> F:
    """Give a verb on a run the option `--call`, as the argument `call_id`."""
    return click.option("--call", "call_id", metavar="CALL_ID", help="Which call, when several wait.")(function)


def _decider(context: click.Context, _: click.Parameter, value: str | None) -> str:
    if context.resilient_parsing:
        return ""
    if value is None:
        import getpass

        try:
            value = getpass.getuser()
        except (ImportError, KeyError, OSError):
            raise InvalidInputError(
                "Who decides is not known: this process has no login name.", hint="Say it: add --by NAME."
            ) from None
    if not value.strip():
        raise InvalidInputError(f"Who decides is a name, not {value!r}.", hint="Say it: --by NAME.")
    return value


@click.command()
@click.argument("run_id", metavar="ID")
@click.argument("text")
@call_option
@by_option
def answer(run_id: str, text: str, call_id: str | None, by: str) -> None:
    """Answer a question that the model has asked with ask_user.

    The model gets TEXT as the result of the call. ID is the run's, or that of the approval.

    \b
    Example:
      timestep runs answer order-43 "The blue one"
    """
    from timestep.client import approvals

    def decide(asked: Approval, database: Database) -> Coroutine[Any, Any, Approval]:
        return approvals.answer(asked.run_id, text, by=by, approval_id=asked.id, database=database)

    take_decision(run_id, call_id, kinds_decided_by("answer"), decide)


@click.command()
@click.argument("run_id", metavar="ID")
@click.option("--happened", metavar="JSON", help="It happened, and this is its result; the tool does not run again.")
@click.option("--did-not-happen", is_flag=True, help="It did not happen; the tool runs again.")
@click.option("--fail", is_flag=True, help="Nobody can know; the run fails.")
@call_option
@by_option
def settle(run_id: str, happened: str | None, did_not_happen: bool, fail: bool, call_id: str | None, by: str) -> None:
    """Say what became of a call whose process died before it was recorded.

    Find out at the service that the tool changes; `timestep approvals show` prints the idempotency key. ID is the
    run's, or that of the approval.

    \b
    Example:
      timestep runs settle order-43 --happened '"paid, receipt 7"'
    """
    from timestep.client import approvals

    if (happened is not None) + did_not_happen + fail != 1:
        raise click.UsageError("Say one of --happened JSON, --did-not-happen and --fail.")
    result = None if happened is None else _json_of(happened)
    outcome: approvals.Outcome = "fail" if fail else "did_not_happen" if did_not_happen else "happened"

    def decide(asked: Approval, database: Database) -> Coroutine[Any, Any, Approval]:
        return approvals.settle(
            asked.run_id, by=by, outcome=outcome, result=result, approval_id=asked.id, database=database
        )

    take_decision(run_id, call_id, kinds_decided_by("settle"), decide)


@click.command("raise-limits")
@click.argument("run_id", metavar="ID")
@click.option("--max-turns", type=click.IntRange(min=1), metavar="N", help="Model calls of all agents of the run.")
@click.option("--max-tool-calls", type=click.IntRange(min=1), metavar="N", help="Tool calls.")
@click.option("--max-tokens", type=click.IntRange(min=1), metavar="N", help="Input and output tokens.")
@click.option("--max-cost-micro-usd", type=click.IntRange(min=1), metavar="N", help="Cost in millionths of a dollar.")
@click.option("--max-seconds", type=float, metavar="SECONDS", help="Seconds of execution.")
@by_option
def raise_limits(run_id: str, max_seconds: float | None, by: str, **limits: int | None) -> None:
    """Let a run go on that has reached a limit.

    Limits count from the start of the run; those that are not given stay as they are. `timestep approvals reject`
    ends the run instead. ID is the run's, or that of the approval.

    \b
    Example:
      timestep runs raise-limits order-43 --max-turns 60
    """
    from timestep.client import approvals

    if max_seconds is not None and not (math.isfinite(max_seconds) and max_seconds > 0):
        raise click.UsageError(f"--max-seconds is a number above 0, not {max_seconds}.")
    if max_seconds is None and not any(limits.values()):
        raise click.UsageError("Say the new limit, such as --max-turns 60.")
    raised = RunLimits(max_seconds=max_seconds, **limits)  # type: ignore[arg-type]

    def decide(asked: Approval, database: Database) -> Coroutine[Any, Any, Approval]:
        return approvals.raise_limits(asked.run_id, raised, by=by, approval_id=asked.id, database=database)

    take_decision(run_id, None, kinds_decided_by("raise_limits"), decide)


def take_decision(text: str, call_id: str | None, kinds: tuple[ApprovalKind, ...], verb: Verb) -> None:
    """Let `verb` decide the approval that a person means, and say what was decided and what happens next."""
    from timestep.cli.connect import open_desk
    from timestep.cli.runs.asked import commands, find_asked
    from timestep.store.approvals import open_approvals

    with open_desk() as desk:
        asked = find_asked(desk.database, text, call_id, kinds=kinds)
        try:
            made = asyncio.run(verb(asked, desk.database))
        except InvalidInputError as error:
            others = desk.database.run_sync(open_approvals, asked.run_id)
            if kind_of_approval(asked.kind).answer == "limits":  # its hint is for programs
                error.hint = f"Type `{commands(asked, others)[0]}` with more than {asked.details['used']}."
            raise
        _tell(desk, made)


def _tell(desk: Desk, made: Approval) -> None:
    from timestep.cli.runs.asked import call_text, commands, kind_text, wish
    from timestep.cli.runs.ending import error_text
    from timestep.store.approvals import approvals_of_segment, open_approvals
    from timestep.store.runs import get_stored_run

    shown = call_text(made) if kind_of_approval(made.kind).about == "call" else f"the {kind_text(made)}"
    note(f"{_past(made)} {shown} of run {made.run_id}.")
    if made.is_sticky and kind_of_approval(made.kind).decision == "approved":
        same = desk.database.run_sync(approvals_of_segment, made.run_id, made.segment)
        also = [each for each in same if each.decided_at == made.decided_at and each.id != made.id]
        note(f"So is every further call of {made.tool} by {made.agent} in this run" + _open_ones(len(also)))
    run = desk.database.run_sync(get_stored_run, made.run_id).run
    asked = desk.database.run_sync(open_approvals, made.run_id)
    if run.status == "interrupted" and asked:
        note(f"The run still waits for {len(asked)} decision{'' if len(asked) == 1 else 's'}:")
        for each in asked:
            note(f"  {wish(each)}")
            note(f"    {commands(each, asked)[0]}")
        return
    if run.status == "failed":
        note(f"The run has failed: {error_text(run)}")
        return
    name = shlex.quote(made.run_id)
    if desk.live_executors(run.agent):
        note("The run goes on.")
    else:
        note(f"The run goes on as soon as an executor has the agent {run.agent!r}; none is alive.")
        note("  start one:  timestep worker MODULE")
    note(f"  watch it:   timestep runs tail {name}")


def _open_ones(count: int) -> str:
    return "." if not count else f"; {count} more {'was' if count == 1 else 'were'} open."


def _past(made: Approval) -> str:
    return kind_of_approval(made.kind).said.get(made.status, made.status.capitalize())


def _json_of(text: str) -> Any:
    def refuse(constant: str) -> Any:
        raise ValueError(f"{constant} is not JSON")

    try:
        return json.loads(text, parse_constant=refuse)
    except ValueError as error:
        raise InvalidInputError(
            f"--happened takes JSON, not {text!r}: {error}.",
            hint=f"Text needs quotes of its own: --happened {shlex.quote(json.dumps(text, ensure_ascii=False))}",
        ) from None
