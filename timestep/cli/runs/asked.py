"""What a run waits for: in words, what to type about it, and which one a person means."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

from timestep.cli.output import clean
from timestep.client.runs import find_runs, full_run_id
from timestep.errors import AmbiguousCallError, ApprovalNotFoundError, InvalidInputError
from timestep.records import Approval, Run
from timestep.store import approvals as store
from timestep.store.connection import Database
from timestep.store.runs import find_stored_run, get_stored_run
from timestep.words import AGENT_NOT_REGISTERED, ApprovalKind, kind_of_approval

SHORT_ID = 8
"""Characters of an approval id that are printed in tables and hints; any prefix that no other one has is taken."""

LONGEST_SUMMARY = 200

_UUID_LENGTH = 36


def short_id(approval: Approval) -> str:
    """Return the beginning of an approval id; one that the engine has not made stays whole."""
    return approval.id[:SHORT_ID] if len(approval.id) == _UUID_LENGTH else approval.id


def call_text(approval: Approval) -> str:
    """Return the call of an approval on one line, such as `refund({"order": 7})`."""
    return _one_line(f"{approval.tool}({approval.arguments})")


def wish(approval: Approval) -> str:
    """Return what a run waits for, such as `an approval of refund({"order": 7})`."""
    kind = kind_of_approval(approval.kind)
    return kind.wish.format(shown=call_text(approval) if kind.about == "call" else summary(approval))


def summary(approval: Approval) -> str:
    """Return what is asked on one line: the arguments, the question, or the limit."""
    match kind_of_approval(approval.kind).about:
        case "question":
            return question_text(approval)
        case "limits":
            return _limit_text(approval.details or {})
        case "call":
            return _one_line(approval.arguments)


def question_text(approval: Approval) -> str:
    """Return a question with its choices on one line."""
    details: dict[str, Any] = approval.details or {}
    choices = details.get("choices")
    shown = f" ({', '.join(map(str, choices))})" if choices else ""
    return _one_line(f"{details.get('question', '')}{shown}")


def commands(approval: Approval, asked: Sequence[Approval]) -> list[str]:
    """Return the commands that decide an approval; `asked` is all that its run waits for."""
    run, call = _target(approval, asked)
    details: dict[str, Any] = approval.details or {}
    option = str(details.get("limit", "max_turns")).replace("_", "-")
    names = {"id": shlex.quote(short_id(approval)), "run": run, "call": call, "limit": option}
    return [command.format_map(names) for command in kind_of_approval(approval.kind).commands]


def waiting_lines(run: Run, asked: Sequence[Approval]) -> list[str]:
    """Return what an interrupted run waits for, each followed by the commands to type; nothing for another run."""
    if run.status != "interrupted":
        return []
    if not asked:
        if run.reason == AGENT_NOT_REGISTERED:  # it goes on by itself where the agent is known
            return [f"waits for an executor that has the agent {run.agent!r}", "  timestep worker MODULE"]
        return ["waits until its cause is mended", f"  timestep runs resume {shlex.quote(run.run_id)}"]
    return [
        line
        for each in asked
        for line in (f"waits for {wish(each)}", *(f"  {command}" for command in commands(each, asked)))
    ]


def find_asked(
    database: Database, text: str, call_id: str | None = None, *, kinds: Sequence[ApprovalKind] = ()
) -> Approval:
    """Return the approval that a person means by its id or a prefix of it, or by a run and, if need be, a call.

    With `kinds` it is of one of them. An approval that was decided is found by its id or call, too.

    Raises:
        ApprovalNotFoundError: there is none, or the prefix is not of one alone.
        RunNotFoundError: there is no such run.
        AmbiguousCallError: more than one is open.
        InvalidInputError: it is of another kind.
    """
    found = _by_approval_id(database, text) if call_id is None else None
    if found is None:
        found = _by_run(database, full_run_id(database, text), call_id, kinds)
    if kinds and found.kind not in kinds:
        run = database.run_sync(get_stored_run, found.run_id).run
        asked = database.run_sync(store.open_approvals, found.run_id)
        is_open = found.status == "open" and run.status == "interrupted"
        typed = commands(found, asked)[0] if is_open else f"timestep approvals show {shlex.quote(short_id(found))}"
        raise InvalidInputError(
            f"The {kind_text(found)} {short_id(found)} of run {found.run_id!r} takes another decision.",
            hint=f"Type `{typed}`.",
        )
    return found


def kind_text(approval: Approval) -> str:
    """Return the kind of an approval as a person says it."""
    return approval.kind.replace("_", " ")


def _by_approval_id(database: Database, text: str) -> Approval | None:
    """Return the one approval that `text` names; None when it names a run, or nothing."""
    if not text.strip():
        raise ApprovalNotFoundError(f"There is no approval {text!r}.")
    found = database.run_sync(store.find_approval, text)
    if found is not None or database.run_sync(find_stored_run, text) is not None:
        return found
    near = database.run_sync(store.list_approvals, is_waiting=False, id_prefix=text, limit=4)
    runs = find_runs(database, id_prefix=text, limit=1)
    if len(near) + len(runs) > 1 and near:
        names = [each.id for each in near[:3]] + [f"run {run.run_id}" for run in runs]
        raise ApprovalNotFoundError(
            f"More than one approval or run begins with {text!r}: {', '.join(names)}.", hint="Type more of the id."
        )
    if not near and not runs:
        raise ApprovalNotFoundError(f"There is no approval or run {text!r}.")
    return near[0] if near else None


def _by_run(database: Database, run_id: str, call_id: str | None, kinds: Sequence[ApprovalKind]) -> Approval:
    asked = [
        each for each in database.run_sync(store.open_approvals, run_id) if call_id is None or each.call_id == call_id
    ]
    fitting = [each for each in asked if not kinds or each.kind in kinds] or asked[:1]
    if len(fitting) > 1:
        named = "; ".join(f"{short_id(each)} {wish(each)}" for each in fitting)
        where = f"has {len(fitting)} open calls {call_id!r}" if call_id else f"waits for {len(fitting)} decisions"
        raise AmbiguousCallError(
            f"The run {run_id!r} {where}: {named}.", hint="Type the id of one of them in the place of the run's."
        )
    if fitting:
        return fitting[0]
    newest = database.run_sync(store.newest_of_call, run_id, call_id) if call_id is not None else None
    if newest is not None:
        return newest
    run = database.run_sync(get_stored_run, run_id).run
    what = f"has no call {call_id!r} that waits" if call_id else "waits for no decision"
    raise ApprovalNotFoundError(
        f"The run {run_id!r} {what}: it is {run.status}.",
        hint=f"Look at it with `timestep runs show {shlex.quote(run_id)}`.",
    )


def _target(approval: Approval, asked: Sequence[Approval]) -> tuple[str, str]:
    """Return the words that name an approval to the verbs of `timestep runs`: before and after their text."""
    same = [each for each in asked if each.kind == approval.kind]
    if len(same) <= 1:
        return shlex.quote(approval.run_id), ""
    if [each.call_id for each in same].count(approval.call_id) == 1 and approval.call_id:
        return shlex.quote(approval.run_id), f" --call {shlex.quote(approval.call_id)}"
    return shlex.quote(short_id(approval)), ""


def _limit_text(details: dict[str, Any]) -> str:
    return f"{details.get('limit')}={details.get('value')}, with {details.get('used')} used"


def _one_line(text: str) -> str:
    line = clean(text)
    return line if len(line) <= LONGEST_SUMMARY else line[: LONGEST_SUMMARY - 1] + "…"
