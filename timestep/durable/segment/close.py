"""What the closing transaction of a segment stores, made from its outcome. Pure: the same outcome, the same rows."""

from __future__ import annotations

import dataclasses
import uuid
from datetime import UTC, date, datetime, timedelta
from typing import Any

from agents import RunResult, RunResultStreaming
from agents.version import __version__ as sdk_version

from timestep.client.serializer import encode_error
from timestep.durable.journal.scope import Segment
from timestep.durable.process.engine import engine
from timestep.durable.process.tool_policies import policy_of
from timestep.durable.segment.outcome import Outcome, items_already_stored
from timestep.durable.states.decisions import call_id_of, digest_of_arguments
from timestep.durable.states.output import dump_output, keep_output
from timestep.durable.states.snapshots import check_snapshot_size
from timestep.durable.states.state_json import json_of_state
from timestep.records import Approval
from timestep.run_state.envelope import Snapshot, python_snapshot
from timestep.store.json_text import storable_text
from timestep.store.runs import StoredRun
from timestep.store.segments import Closing
from timestep.store.tool_calls import ToolCallRow
from timestep.store.usage import ModelCallUsage
from timestep.tools.ask_user import question_of
from timestep.words import APPROVAL, QUESTION, RunStatus, kind_of_approval, reason_of


def closing_of(outcome: Outcome, stored: StoredRun, segment: Segment, *, context_type: type | None) -> Closing:
    """Return the closing of a segment; `context_type` is the one that is registered with its agent.

    Raises:
        SnapshotTooLargeError: the snapshot is; the run is then closed as failed with that error.
    """
    if fatal := next((question for question in outcome.questions if question.is_fatal), None):
        return _failed_closing(outcome, stored, segment, error=fatal.error)
    if outcome.result is None and not outcome.questions:
        assert outcome.error is not None
        return _failed_closing(outcome, stored, segment, error=outcome.error)
    result = outcome.result
    status: RunStatus = "succeeded"
    reason = None
    if outcome.is_interrupted:
        status, reason = "interrupted", _reason_to_wait(outcome)
    elif outcome.is_checkpoint:
        status = "running"
    has_output = result is not None and status == "succeeded"
    snapshot = None
    if result is not None:
        kept = keep_output(result.final_output, result.last_agent.output_type) if has_output else None
        snapshot = _snapshot(outcome, result, stored, segment, context_type=context_type, output=kept)
    return Closing(
        **_common(outcome, stored, segment),
        status=status,
        reason=reason,
        output=dump_output(result.final_output) if result is not None and has_output else None,
        error=None,
        last_agent=result.last_agent.name if result is not None else stored.last_agent,
        snapshot=snapshot,
        approvals=_questions(outcome, stored, segment) if result is None else _approvals(result, stored, segment),
        continues=outcome.is_checkpoint,
        is_repeated=bool(outcome.questions),
    )


def _reason_to_wait(outcome: Outcome) -> str:
    return kind_of_approval(outcome.questions[0].kind).reason if outcome.questions else APPROVAL


def _failed_closing(outcome: Outcome, stored: StoredRun, segment: Segment, *, error: Exception) -> Closing:
    return Closing(
        **_common(outcome, stored, segment),
        status="failed",
        reason=reason_of(error),
        output=None,
        error=encode_error(error),
        last_agent=None,
        is_repeated=True,
    )


def _common(outcome: Outcome, stored: StoredRun, segment: Segment) -> dict[str, Any]:
    items = outcome.finished_items()[items_already_stored(stored, segment) :]
    return {
        "run_id": segment.run_id,
        "segment": segment.number,
        "session_id": stored.run.session_id,
        "session_items": [] if outcome.is_session_written else items,
        "items_written": len(items) if outcome.is_session_written else 0,
        "tool_calls": [_tool_call(call, segment) for call in segment.record.tool_calls],
        "model_calls": [
            _model_call(turn, segment) for turn in (*segment.record.model_turns, *segment.record.refused_turns)
        ],
    }


def _snapshot(
    outcome: Outcome,
    result: RunResult | RunResultStreaming,
    stored: StoredRun,
    segment: Segment,
    *,
    context_type: type | None,
    output: Any,
) -> Snapshot:
    session = outcome.session
    held = session.held_items(outcome.turn) if session is not None and outcome.is_interrupted else None
    snapshot = python_snapshot(
        json_of_state(result.to_state(), context_type=context_type),
        agent=stored.run.agent,
        sdk_version=sdk_version,
        run_id=segment.run_id,
        session_id=stored.run.session_id,
        segment=segment.number,
        kind="interrupted" if result.interruptions else "checkpoint" if outcome.is_checkpoint else "final",
        output=output,
        held_items=held,
        mcp_tools=segment.record.mcp_tools or None,
    )
    state = _without_secrets(snapshot.state)
    if snapshot.kind != "final":
        check_snapshot_size(state, limit_bytes=2 * segment.max_result_bytes)
    return dataclasses.replace(snapshot, state=state)


def _without_secrets(state: dict[str, Any]) -> dict[str, Any]:
    trace = state.get("trace")
    if isinstance(trace, dict) and "tracing_api_key" in trace:
        return state | {"trace": {key: value for key, value in trace.items() if key != "tracing_api_key"}}
    return state


def _tool_call(call: dict[str, Any], segment: Segment) -> ToolCallRow:
    envelope = call["envelope"]
    return ToolCallRow(
        run_id=segment.run_id,
        call_key=call["call_key"],
        segment=segment.number,
        agent=call["agent"],
        tool=call["tool"],
        call_id=storable_text(call["call_id"]),
        arguments=call["arguments"],
        result=envelope.get("ok"),
        error=envelope.get("error"),
        attempt=envelope.get("attempt", 1),
        started_at=_time(envelope.get("started_at")),
        finished_at=_time(envelope.get("finished_at")),
    )


def _model_call(turn: dict[str, Any], segment: Segment) -> ModelCallUsage:
    envelope, used = turn["envelope"], turn["usage"]
    return ModelCallUsage(
        run_id=segment.run_id,
        step=turn["step"],
        segment=segment.number,
        agent=turn["agent"],
        model=envelope.get("model"),
        provider=envelope.get("provider"),
        requests=max(used.requests, 1),
        input_tokens=used.input_tokens,
        cached_tokens=used.input_tokens_details.cached_tokens or 0,
        output_tokens=used.output_tokens,
        reasoning_tokens=used.output_tokens_details.reasoning_tokens or 0,
        created_at=_time(envelope["started_at"] + envelope["seconds"]) or datetime.now(UTC),
        cost_micro_usd=envelope.get("cost_micro_usd"),
        price_source=envelope.get("price_source"),
        priced_at=date.fromisoformat(envelope["priced_at"]) if envelope.get("priced_at") else None,
    )


def _approvals(result: RunResult | RunResultStreaming, stored: StoredRun, segment: Segment) -> list[Approval]:
    return [_approval(place, item, stored, segment) for place, item in enumerate(result.interruptions)]


def _approval(place: int, item: Any, stored: StoredRun, segment: Segment) -> Approval:
    tool = next((tool for tool in item.agent.tools if tool.name == item.name), None)
    question = question_of(tool, item.arguments or "")
    policy, settings = policy_of(item.name or "", tool), engine().settings
    seconds = policy.approval_expires_seconds or settings.approval_expires_seconds
    return Approval(
        id=_approval_id(segment, place),
        run_id=segment.run_id,
        segment=segment.number,
        place=place,
        kind=QUESTION if question is not None else APPROVAL,
        session_id=stored.run.session_id,
        agent=item.agent.name,
        tool=item.name or "",
        call_id=call_id_of(item),
        arguments=item.arguments or "",
        arguments_digest=digest_of_arguments(item.arguments or ""),
        details=question,
        on_expiry=(policy.on_expiry or settings.approval_on_expiry) if seconds is not None else None,
        expires_at=datetime.now(UTC) + timedelta(seconds=seconds) if seconds is not None else None,
    )


def _questions(outcome: Outcome, stored: StoredRun, segment: Segment) -> list[Approval]:
    return [
        Approval(
            id=_approval_id(segment, place),
            run_id=segment.run_id,
            segment=segment.number,
            place=place,
            kind=question.kind,
            session_id=stored.run.session_id,
            agent=question.agent,
            tool=question.tool,
            call_id=question.call_id,
            call_key=question.call_key,
            arguments=question.arguments,
            arguments_digest=digest_of_arguments(question.arguments),
            details=question.details,
        )
        for place, question in enumerate(outcome.questions)
    ]


def _approval_id(segment: Segment, place: int) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{segment.run_id}/{segment.number}/{place}"))


def _time(seconds: float | None) -> datetime | None:
    return datetime.fromtimestamp(seconds, UTC) if seconds is not None else None
