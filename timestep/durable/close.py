"""What the closing transaction of a segment stores, made from its outcome. Pure: the same outcome, the same rows."""

from __future__ import annotations

import dataclasses
import hashlib
import uuid
from datetime import UTC, datetime
from typing import Any

from agents import AgentOutputSchemaBase, RunResult
from agents.version import __version__ as sdk_version
from pydantic import TypeAdapter

from timestep.durable.run import Outcome
from timestep.durable.scope import Segment
from timestep.errors import InvalidInputError, ToolResultError
from timestep.records import RunStatus
from timestep.run_state.envelope import Snapshot, python_snapshot
from timestep.serializer import encode_error
from timestep.store.approvals import Approval
from timestep.store.json_text import dump_json, storable_text
from timestep.store.runs import StoredRun
from timestep.store.segments import Closing
from timestep.store.tool_calls import ToolCall
from timestep.store.usage import ModelCallUsage

_ANY: TypeAdapter[Any] = TypeAdapter(Any)


def closing_of(outcome: Outcome, stored: StoredRun, segment: Segment) -> Closing:
    """Return the closing of a segment.

    Raises:
        ToolResultError: the final output is not JSON-able; the run is then closed as failed with that error.
    """
    result, session = outcome.result, outcome.session
    is_interrupted = outcome.is_interrupted
    status: RunStatus = "failed" if result is None else "interrupted" if is_interrupted else "succeeded"
    output = dump_output(result.final_output) if result is not None and status == "succeeded" else None
    items = [] if outcome.is_session_written else outcome.finished_items()
    held = session.held_items(outcome.turn) if session is not None and is_interrupted else None
    return Closing(
        run_id=segment.run_id,
        segment=segment.number,
        status=status,
        reason="approval" if is_interrupted else reason_of(outcome.error),
        output=output,
        error=encode_error(outcome.error) if outcome.error is not None else None,
        last_agent=result.last_agent.name if result is not None else None,
        session_id=stored.run.session_id,
        session_items=items[_already_stored(stored, segment) :],
        snapshot=_snapshot(result, stored, segment, output=output, held=held) if result is not None else None,
        tool_calls=[_tool_call(call, segment) for call in segment.record.tool_calls],
        model_calls=[_model_call(turn, segment) for turn in segment.record.model_turns],
        approvals=_approvals(result, stored, segment) if result is not None else [],
    )


def reason_of(error: Exception | None) -> str | None:
    """Return the reason word of an error: its class name in snake case."""
    if error is None:
        return None
    name = type(error).__name__
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("_")


def dump_output(output: Any) -> Any:
    """Return a final output as JSON.

    Raises:
        ToolResultError: it is not JSON-able.
    """
    try:
        data = output if isinstance(output, str) else _ANY.dump_python(output, mode="json")
        dump_json(data)
    except (InvalidInputError, ValueError, TypeError) as error:
        raise ToolResultError(f"The final output, a {type(output).__name__}, cannot be stored: {error}.") from error
    return data


def load_output(data: Any, output_type: Any) -> Any:
    """Return a final output of its JSON, of the agent's output type."""
    if isinstance(output_type, AgentOutputSchemaBase):
        output_type = getattr(output_type, "output_type", None)  # a schema of the caller's own may know none
    if output_type is None or output_type is str or data is None:
        return data
    return TypeAdapter(output_type).validate_python(data)


def _already_stored(stored: StoredRun, segment: Segment) -> int:
    """A segment that replays a failed one's journal brings its items again; one that goes on from a snapshot not."""
    return stored.session_items_stored if segment.is_fork else 0


def _snapshot(
    result: RunResult, stored: StoredRun, segment: Segment, *, output: Any, held: list[Any] | None
) -> Snapshot:
    snapshot = python_snapshot(
        result.to_state().to_json(),
        agent=stored.run.agent,
        sdk_version=sdk_version,
        run_id=segment.run_id,
        session_id=stored.run.session_id,
        segment=segment.number,
        kind="interrupted" if result.interruptions else "final",
        output=output,
        held_items=held,
    )
    return dataclasses.replace(snapshot, state=_without_secrets(snapshot.state))


def _without_secrets(state: dict[str, Any]) -> dict[str, Any]:
    trace = state.get("trace")
    if isinstance(trace, dict) and "tracing_api_key" in trace:
        return state | {"trace": {key: value for key, value in trace.items() if key != "tracing_api_key"}}
    return state


def _tool_call(call: dict[str, Any], segment: Segment) -> ToolCall:
    envelope = call["envelope"]
    return ToolCall(
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
    )


def _approvals(result: RunResult, stored: StoredRun, segment: Segment) -> list[Approval]:
    return [
        Approval(
            id=str(uuid.uuid5(uuid.NAMESPACE_OID, f"{segment.run_id}/{segment.number}/{number}")),
            run_id=segment.run_id,
            segment=segment.number,
            session_id=stored.run.session_id,
            agent=item.agent.name,
            tool=item.name or "",
            call_id=storable_text(_call_id(item)),
            arguments=item.arguments or "",
            arguments_digest=hashlib.sha256((item.arguments or "").encode(errors="surrogatepass")).hexdigest(),
        )
        for number, item in enumerate(result.interruptions)
    ]


def _call_id(item: Any) -> str:
    raw = item.raw_item
    value = raw.get("call_id") or raw.get("id") if isinstance(raw, dict) else getattr(raw, "call_id", None)
    return str(value or "")


def _time(seconds: float | None) -> datetime | None:
    return datetime.fromtimestamp(seconds, UTC) if seconds is not None else None
