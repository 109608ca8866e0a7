"""How commands take a decision: who decides, the verbs of `timestep runs` for it, and what happens next."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from timestep.cli.output import note
from timestep.errors import AmbiguousCallError, InvalidInputError
from timestep.records import Approval, RunLimits
from timestep.words import kind_of_approval

if TYPE_CHECKING:
    from timestep.client.approvals import Decision
    from timestep.client.connector import Connector

F = TypeVar("F", bound=Callable[..., Any])


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
    from timestep.client.approvals import answer_to_question

    take_decision(run_id, call_id, answer_to_question(text, by=by))


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
    from timestep.client.approvals import Outcome, settlement

    if (happened is not None) + did_not_happen + fail != 1:
        raise click.UsageError("Say one of --happened JSON, --did-not-happen and --fail.")
    result = None if happened is None else _json_of(happened)
    outcome: Outcome = "fail" if fail else "did_not_happen" if did_not_happen else "happened"
    take_decision(run_id, call_id, settlement(outcome, by=by, result=result))


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
    from timestep.client.approvals import higher_limits

    if max_seconds is not None and not (math.isfinite(max_seconds) and max_seconds > 0):
        raise click.UsageError(f"--max-seconds is a number above 0, not {max_seconds}.")
    if max_seconds is None and not any(limits.values()):
        raise click.UsageError("Say the new limit, such as --max-turns 60.")
    raised = RunLimits(max_seconds=max_seconds, **limits)  # type: ignore[arg-type]
    take_decision(run_id, None, higher_limits(raised, by=by))


def take_decision(text: str, call_id: str | None, decision: Decision) -> None:
    """Decide the approval that a person means, and say what was decided and what happens next."""
    from timestep.cli.connect import connect
    from timestep.client import approvals

    with connect() as connector:
        try:
            asked = approvals.find_asked(connector, text, call_id, kinds=decision.kinds)
        except AmbiguousCallError as error:
            error.hint = "Type the id of one of them in the place of the run's."
            raise
        try:
            made = approvals.decide(connector, asked, decision)
        except InvalidInputError as error:
            error.hint = _typed(connector, asked, decision) or error.hint
            raise
        _tell(connector, made)


def _typed(connector: Connector, asked: Approval, decision: Decision) -> str | None:
    """Return what to type instead of a decision that was refused, where the hint is for programs."""
    from timestep.cli.runs.asked import commands
    from timestep.client.approvals import open_approvals

    is_of_kind = not decision.kinds or asked.kind in decision.kinds
    if is_of_kind and kind_of_approval(asked.kind).answer != "limits":
        return None
    others = open_approvals(connector, asked.run_id)
    if asked not in others:
        return f"Look at it: `timestep approvals show {shlex.quote(asked.id)}`."
    typed = commands(asked, others)[0]
    return f"Type `{typed}` with more than {asked.details['used']}." if is_of_kind else f"Type `{typed}`."


def _tell(connector: Connector, made: Approval) -> None:
    from timestep.cli.runs.asked import commands
    from timestep.cli.runs.ending import error_text
    from timestep.client.approvals import approvals_of_segment, open_approvals
    from timestep.client.asked import call_text, kind_text, wish
    from timestep.client.executors import list_live_executors
    from timestep.client.runs import get_run

    shown = call_text(made) if kind_of_approval(made.kind).about == "call" else f"the {kind_text(made)}"
    note(f"{_past(made)} {shown} of run {made.run_id}.")
    if made.is_sticky and kind_of_approval(made.kind).decision == "approved":
        same = approvals_of_segment(connector, made.run_id, made.segment)
        also = [each for each in same if each.decided_at == made.decided_at and each.id != made.id]
        note(f"So is every further call of {made.tool} by {made.agent} in this run" + _open_ones(len(also)))
    run = get_run(connector, made.run_id)
    asked = open_approvals(connector, made.run_id)
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
    if list_live_executors(connector, agent=run.agent):
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
