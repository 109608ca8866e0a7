"""The words that Timestep stores, sends and compares: statuses, reasons, steps, events, questions, calls.

Each is written here and nowhere else. Code takes them from here, and so do docs/reference and the constraints of the
tables. Migrations repeat them, as they are history; tests compare what is installed with what is here.

A reader must take a word that is not here: an executor of another release may have written it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, Literal, get_args

RunStatus = Literal["queued", "running", "interrupted", "succeeded", "failed", "cancelled"]
RUN_STATUSES: tuple[RunStatus, ...] = get_args(RunStatus)
FINISHED: frozenset[RunStatus] = frozenset(("succeeded", "failed", "cancelled"))

ApprovalKind = Literal["approval", "question", "outcome_unknown", "limit"]
ApprovalStatus = Literal["open", "approved", "rejected", "answered", "expired"]
APPROVAL_STATUSES: tuple[ApprovalStatus, ...] = get_args(ApprovalStatus)

APPROVAL: Final = "approval"
QUESTION: Final = "question"
OUTCOME_UNKNOWN: Final = "outcome_unknown"
LIMIT: Final = "limit"
AGENT_NOT_REGISTERED: Final = "agent_not_registered"
CONFIGURATION_MISSING: Final = "configuration_missing"
HISTORY_CHANGED: Final = "history_changed"
APPROVAL_EXPIRED: Final = "approval_expired"
LIMIT_REACHED: Final = "limit_reached"
ENGINE_ERROR: Final = "engine_error"
RECOVERY_ATTEMPTS_EXCEEDED: Final = "recovery_attempts_exceeded"
CANCELLED: Final = "cancelled"
PARENT_CANCELLED: Final = "parent_cancelled"
TIMEOUT: Final = "timeout"
EXCEPTION: Final = "exception"


@dataclass(frozen=True, kw_only=True)
class Reason:
    """Why a run has the status that it has.

    `errors` are the classes of the errors that end or interrupt a run with this reason. `formerly` is the word that an
    older release wrote in some places.
    """

    word: str
    statuses: tuple[RunStatus, ...]
    meaning: str
    errors: tuple[str, ...] = ()
    formerly: str | None = None


def _of_timestep(word: str, error: str, meaning: str, *statuses: RunStatus) -> Reason:
    return Reason(word=word, statuses=statuses or ("failed",), meaning=meaning, errors=(f"timestep.errors.{error}",))


def _of_sdk(word: str, error: str, meaning: str, *, formerly: str | None = None) -> Reason:
    return Reason(
        word=word, statuses=("failed",), meaning=meaning, errors=(f"agents.exceptions.{error}",), formerly=formerly
    )


REASONS: tuple[Reason, ...] = (
    Reason(word=APPROVAL, statuses=("interrupted",), meaning="A person must approve calls or answer questions."),
    Reason(word=OUTCOME_UNKNOWN, statuses=("interrupted", "failed"), formerly="outcome_unknown_error",
           meaning="A call was started and not recorded: a person must say what became of it, or could not.",
           errors=("timestep.errors.OutcomeUnknownError",)),
    Reason(word=LIMIT, statuses=("interrupted",), meaning="A limit of the run is reached; a person may raise it."),
    Reason(word=LIMIT_REACHED, statuses=("failed",), formerly="limit_reached_error",
           meaning="A limit of the run is reached.", errors=("timestep.errors.LimitReachedError",)),
    Reason(word=APPROVAL_EXPIRED, statuses=("failed",), formerly="approval_expired_error",
           meaning="Nobody decided in time.", errors=("timestep.errors.ApprovalExpiredError",)),
    Reason(word=AGENT_NOT_REGISTERED, statuses=("interrupted", "failed"), formerly="agent_not_registered_error",
           meaning="The executor that took the run does not know its agent.",
           errors=("timestep.errors.AgentNotRegisteredError",)),
    Reason(word=CONFIGURATION_MISSING, statuses=("interrupted", "failed"),
           meaning="The executor that took the run has its agent without the code of its `run_config`.",
           errors=("timestep.errors.ConfigurationMissingError",)),
    Reason(word=HISTORY_CHANGED, statuses=("interrupted", "failed"), formerly="history_changed_error",
           meaning="The recorded steps do not fit the code that replays them.",
           errors=("timestep.errors.HistoryChangedError",)),
    Reason(word=ENGINE_ERROR, statuses=("failed",), meaning="The engine could not go on with the run."),
    Reason(word=RECOVERY_ATTEMPTS_EXCEEDED, statuses=("failed",),
           meaning="The run was started too often without coming to an end."),
    Reason(word=CANCELLED, statuses=("cancelled",), meaning="Somebody cancelled the run."),
    Reason(word=PARENT_CANCELLED, statuses=("cancelled",), meaning="The run that started it was cancelled with it."),
    Reason(word=TIMEOUT, statuses=("cancelled",), meaning="The run reached its time limit."),
    _of_timestep("snapshot_mismatch_error", "SnapshotMismatchError",
                 "The stored state does not fit the agents of the executor.", "interrupted", "failed"),
    _of_timestep("snapshot_damaged_error", "SnapshotDamagedError",
                 "The text of the stored state is not the one that was stored.", "interrupted", "failed"),
    _of_timestep("snapshot_too_large_error", "SnapshotTooLargeError", "The state of the run is too large to store."),
    _of_timestep("unsupported_error", "UnsupportedError", "The run asked for something that is not supported.",
                 "interrupted", "failed"),
    _of_timestep("invalid_input_error", "InvalidInputError", "A value that the run was given is not valid.",
                 "interrupted", "failed"),
    _of_timestep("tool_result_error", "ToolResultError", "A result cannot be stored as JSON."),
    _of_timestep("result_too_large_error", "ResultTooLargeError", "A result is too large to store."),
    _of_timestep("journal_format_error", "JournalFormatError", "A stored value is not JSON written by Timestep."),
    _of_timestep("model_not_configured_error", "ModelNotConfiguredError", "No provider for the model, or no key."),
    _of_timestep("model_not_found_error", "ModelNotFoundError", "The provider does not have the model."),
    _of_timestep("model_provider_error", "ModelProviderError", "The provider of the model refused the call."),
    _of_timestep("model_server_unreachable_error", "ModelServerUnreachableError", "No model server answers."),
    _of_timestep("incomplete_model_response_error", "IncompleteModelResponseError",
                 "The stream of the model ended before its answer did."),
    _of_sdk("agents_exception", "AgentsException", "The Agents SDK could not go on."),
    _of_sdk("max_turns_exceeded", "MaxTurnsExceeded", "The run had as many turns as it may have."),
    _of_sdk("model_behavior_error", "ModelBehaviorError", "The model answered with something unusable."),
    _of_sdk("model_refusal_error", "ModelRefusalError", "The model refused to answer."),
    _of_sdk("model_timeout_error", "ModelTimeoutError", "The model did not answer in time."),
    _of_sdk("user_error", "UserError", "The program used the Agents SDK wrongly."),
    _of_sdk("mcp_tool_cancellation_error", "MCPToolCancellationError", "A call of an MCP tool was cancelled.",
            formerly="m_c_p_tool_cancellation_error"),
    _of_sdk("tool_timeout_error", "ToolTimeoutError", "A tool did not end in time."),
    _of_sdk("input_guardrail_tripwire_triggered", "InputGuardrailTripwireTriggered", "An input guardrail stopped it."),
    _of_sdk("output_guardrail_tripwire_triggered", "OutputGuardrailTripwireTriggered",
            "An output guardrail stopped it."),
    _of_sdk("tool_input_guardrail_tripwire_triggered", "ToolInputGuardrailTripwireTriggered",
            "An input guardrail of a tool stopped it."),
    _of_sdk("tool_output_guardrail_tripwire_triggered", "ToolOutputGuardrailTripwireTriggered",
            "An output guardrail of a tool stopped it."),
    Reason(word=EXCEPTION, statuses=("failed", "interrupted"), meaning="Any other error; `error.type` is its class."),
)  # fmt: skip
"""Every reason. The list is closed: an error whose class is not here has the reason `exception`."""

FOR_EXECUTORS = (AGENT_NOT_REGISTERED, CONFIGURATION_MISSING)
"""Reasons of interruptions that end by themselves when an executor has what is missing."""

_WORDS = frozenset(each.word for each in REASONS)
_OF_ERROR = {error: each.word for each in REASONS for error in each.errors}
_FORMERLY = {each.formerly: each.word for each in REASONS if each.formerly is not None}


def reason_of(error: BaseException) -> str:
    """Return the reason of a run that ends, or is interrupted, with an error."""
    kind = type(error)
    return _OF_ERROR.get(f"{kind.__module__}.{kind.__qualname__}", EXCEPTION)


def read_reason(stored: str | None, error: Mapping[str, Any] | None) -> str | None:
    """Return the reason of a row as it is written today; `error` is the error envelope of the row.

    Older releases made a word of the class of any error. A word that nobody here knows stays: a newer one wrote it.
    """
    if stored is None or stored in _WORDS:
        return stored
    if stored in _FORMERLY:
        return _FORMERLY[stored]
    return EXCEPTION if error is not None and stored == _snake_case(str(error.get("type"))) else stored


def _snake_case(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("_")


@dataclass(frozen=True, kw_only=True)
class Failure:
    """The error, a class of `timestep.errors`, that a run fails of when what it waits for is refused or expires.

    `text` is its message for a question without one of its own; `%s` is the tool.
    """

    error: str
    text: str

    def to_json(self) -> dict[str, str]:
        """Return it with the reason of the failed run."""
        return {"error": self.error, "reason": _OF_ERROR[f"timestep.errors.{self.error}"], "text": self.text}


EXPIRY = Failure(error="ApprovalExpiredError", text="Nobody decided about the call of %s in time.")
"""What a run fails of that was to fail when nobody decides in time."""


@dataclass(frozen=True, kw_only=True)
class KindOfApproval:
    """One kind of thing that a run waits for.

    Args:
        reason: The reason of a run that waits for it.
        decision: The word with which `timestep.decide` takes it; each kind can be rejected, and may expire.
        answer: The shape of the answer: a text, what became of a call, or new limits.
        verb: The function of `timestep.client.approvals` that decides it.
        about: What a person is shown of it.
        wish: What the run waits for, as a person says it, around what is shown.
        commands: What a person types. `{id}` is the approval, `{run}` and `{call}` name it to the verbs of runs.
        said: How a decision is told, where its status does not say it.
        is_repeated: It is asked in the middle of a turn: the next segment goes on from a copy of the journal.
        failure: What the run fails of when it is rejected; without one the model is told, and the run goes on.
    """

    word: ApprovalKind
    reason: str
    decision: Literal["approved", "answered"]
    answer: Literal["text", "outcome", "limits"] | None
    verb: str
    about: Literal["call", "question", "limits"]
    wish: str
    commands: tuple[str, ...]
    said: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    is_repeated: bool = False
    failure: Failure | None = None


KINDS_OF_APPROVAL: tuple[KindOfApproval, ...] = (
    KindOfApproval(
        word=APPROVAL,
        reason=APPROVAL,
        decision="approved",
        answer=None,
        verb="approve",
        about="call",
        wish="an approval of {shown}",
        commands=("timestep approvals approve {id}", "timestep approvals reject {id} --reason TEXT"),
    ),
    KindOfApproval(
        word=QUESTION,
        reason=APPROVAL,
        decision="answered",
        answer="text",
        verb="answer",
        about="question",
        wish="an answer: {shown}",
        commands=("timestep runs answer {run} TEXT{call}",),
    ),
    KindOfApproval(
        word=OUTCOME_UNKNOWN,
        reason=OUTCOME_UNKNOWN,
        decision="answered",
        answer="outcome",
        verb="settle",
        about="call",
        wish="the outcome of {shown}, which was started and not recorded",
        commands=(
            "timestep runs settle {run}{call} --happened JSON",
            "timestep runs settle {run}{call} --did-not-happen",
            "timestep runs settle {run}{call} --fail",
        ),
        said={"answered": "Settled", "rejected": "Settled"},
        is_repeated=True,
        failure=Failure(error="OutcomeUnknownError", text="The outcome of the call of %s is unknown."),
    ),
    KindOfApproval(
        word=LIMIT,
        reason=LIMIT,
        decision="answered",
        answer="limits",
        verb="raise_limits",
        about="limits",
        wish="a higher limit than {shown}",
        commands=("timestep runs raise-limits {run} --{limit} N", "timestep approvals reject {id}"),
        said={"answered": "Raised"},
        is_repeated=True,
        failure=Failure(error="LimitReachedError", text="A limit was reached."),
    ),
)
"""Every kind of approval."""

_KINDS = {each.word: each for each in KINDS_OF_APPROVAL}


def kind_of_approval(word: ApprovalKind) -> KindOfApproval:
    """Return what is known of a kind; of one that is not known here, what any approval is."""
    return _KINDS.get(word, _KINDS[APPROVAL])


def kinds_decided_by(verb: str) -> tuple[ApprovalKind, ...]:
    """Return the kinds that a verb decides."""
    return tuple(each.word for each in KINDS_OF_APPROVAL if each.verb == verb)


def words_in_sql() -> dict[str, Any]:
    """Return what the SQL function `timestep.words` returns: what `timestep.decide` must know of each kind."""
    return {
        "expiry": EXPIRY.to_json(),
        "kinds": {
            each.word: {
                "decision": each.decision,
                "answer": each.answer,
                "is_repeated": each.is_repeated,
                "failure": each.failure.to_json() if each.failure is not None else None,
            }
            for each in KINDS_OF_APPROVAL
        },
    }


def one_of(column: str, words: Iterable[str]) -> str:
    """Return the SQL condition that a column has one of some words."""
    return f"{column} in ({', '.join(map(repr, words))})"


def listed(words: Iterable[str]) -> str:
    """Return words as a sentence names them: `a, b or c`."""
    *most, last = words
    return f"{', '.join(most)} or {last}" if most else last


MODEL_TURN: Final = "model_turn"
TOOL_CALL: Final = "tool_call"
HANDOFF: Final = "handoff"
INPUT_GUARDRAIL: Final = "input_guardrail"
OUTPUT_GUARDRAIL: Final = "output_guardrail"
TOOL_INPUT_GUARDRAILS: Final = "tool_input_guardrails"
TOOL_OUTPUT_GUARDRAILS: Final = "tool_output_guardrails"
MCP_LIST_TOOLS: Final = "mcp_list_tools"
SESSION_READ: Final = "session_read"
SESSION_WRITE: Final = "session_write"
COPY: Final = "copy"
START_RUN: Final = "start_run"
RESUME_RUN: Final = "resume_run"
WAIT_RUN: Final = "wait_run"
GATHER_RUNS: Final = "gather_runs"

REFUSED: Final = ":refused:"
"""Between the name of a `model_turn` and the number of an answer that was paid for and not taken; a key of usage."""


@dataclass(frozen=True, kw_only=True)
class StepKind:
    """One kind of recorded step.

    `pattern` shows the names of such steps. The path is empty at the top, `<turn>:<call>/` inside an agent used as a
    tool, and `run<number>/` in another Runner.run of the same scope. `shown` is its name in `timestep runs show`.
    `is_call`: the name ends with the key of the call of the model that it executes.
    """

    word: str
    pattern: str
    meaning: str
    shown: str
    is_call: bool = False


def _step(word: str, parts: str, meaning: str, *, shown: str | None = None, is_call: bool = False) -> StepKind:
    pattern = f"<path>{word}:{parts}" if parts else word
    return StepKind(word=word, pattern=pattern, meaning=meaning, shown=shown or word, is_call=is_call)


STEP_KINDS: tuple[StepKind, ...] = (
    _step(MODEL_TURN, "<turn>:<agent>", "One model call with its retries and fallbacks.", shown="model"),
    _step(TOOL_CALL, "<turn>:<tool>:<call>", "One call of a tool.", shown="tool", is_call=True),
    _step(HANDOFF, "<turn>:<tool>:<call>", "The callback of a handoff.", is_call=True),
    _step(INPUT_GUARDRAIL, "<number>:<name>", "One guardrail of the input."),
    _step(OUTPUT_GUARDRAIL, "<turn>:<step id>:<name>", "One guardrail of the output."),
    _step(TOOL_INPUT_GUARDRAILS, "<turn>:<tool>:<call>:<step id>", "All input guardrails of one call."),
    _step(TOOL_OUTPUT_GUARDRAILS, "<turn>:<tool>:<call>:<step id>", "All output guardrails of one call."),
    _step(MCP_LIST_TOOLS, "<turn>:<server>:<step id>", "The list of the tools of an MCP server."),
    _step(SESSION_READ, "", "The items of a session that is not kept with the run."),
    _step(SESSION_WRITE, "", "The items of the run, added to such a session."),
    _step(COPY, "", "The start of a segment from a copy of the journal before it."),
    _step(START_RUN, "", "The start of the run of one tick of a schedule."),
    _step(RESUME_RUN, "", "A RunState given to a run in a workflow of the program's own."),
    _step(WAIT_RUN, "", "The end of a run that a workflow waits for."),
    _step(GATHER_RUNS, "", "The ends of several runs that a workflow waits for."),
)
"""Every kind of step. DBOS adds its own, whose names begin with `DBOS.`."""

STEP_LABELS = {each.word: each.shown for each in STEP_KINDS}
STEPS_OF_CALLS = frozenset(each.word for each in STEP_KINDS if each.is_call)

TEXT_DELTA: Final = "text_delta"
TURN_FINISHED: Final = "turn_finished"
TOOL_STARTED: Final = "tool_started"
TOOL_FINISHED: Final = "tool_finished"
WAITING_FOR_RATE_LIMIT: Final = "waiting_for_rate_limit"
STEP: Final = "step"
RESTARTED: Final = "restarted"
RUN_INTERRUPTED: Final = "run_interrupted"
RUN_FINISHED: Final = "run_finished"


@dataclass(frozen=True, kw_only=True)
class EventType:
    """One type of event that `stream_run` yields.

    `source` says where it is from: a step of a run with a stream wrote it, the journal of a run without one has it, or
    the reader adds it. `fields` are its own; those that all events of a source have come with them.
    """

    word: str
    source: Literal["step", "journal", "reader"]
    fields: tuple[str, ...]
    meaning: str


EVENT_TYPES: tuple[EventType, ...] = (
    EventType(word=TEXT_DELTA, source="step", fields=("agent", "text"), meaning="More text of an answer."),
    EventType(word=TURN_FINISHED, source="step", fields=("agent", "model", "seconds", "usage"),
              meaning="The model has answered."),
    EventType(word=TOOL_STARTED, source="step", fields=("tool", "call_id", "arguments"), meaning="A tool call begins."),
    EventType(word=TOOL_FINISHED, source="step", fields=("tool", "call_id", "is_error"),
              meaning="A tool call has ended."),
    EventType(word=WAITING_FOR_RATE_LIMIT, source="step", fields=("agent", "limit", "seconds"),
              meaning="A model call waits for a rate limit."),
    EventType(word=STEP, source="journal",
              fields=("step", "kind", "step_id", "seconds", "is_error", "segment", "attempt", "number"),
              meaning="A step was recorded; of a model call there are `model` and `usage` too."),
    EventType(word=RESTARTED, source="reader", fields=("step", "turn", "path", "segment", "attempt", "offset"),
              meaning="Drop what you had of this step: a new attempt follows."),
    EventType(word=RUN_INTERRUPTED, source="reader", fields=("reason", "approvals", "segment"),
              meaning="The run waits, and the reader waits with it."),
    EventType(word=RUN_FINISHED, source="reader", fields=("status", "reason", "segment"),
              meaning="The run has ended; this is the last event."),
)  # fmt: skip
"""Every type of event."""

FUNCTION_CALL: Final = "function_call"
CUSTOM_TOOL_CALL: Final = "custom_tool_call"
SHELL_CALL: Final = "shell_call"
LOCAL_SHELL_CALL: Final = "local_shell_call"
APPLY_PATCH_CALL: Final = "apply_patch_call"
COMPUTER_CALL: Final = "computer_call"
FUNCTION_CALL_OUTPUT: Final = "function_call_output"


@dataclass(frozen=True, kw_only=True)
class CallType:
    """One type of call in a model's answer that is executed here; the words are those of the Responses API.

    In the JSON of a RunState the calls of a turn stand in the list `group`, each with its tool under `tool`.
    """

    word: str
    group: str
    tool: str


CALL_TYPES: tuple[CallType, ...] = (
    CallType(word=FUNCTION_CALL, group="functions", tool="tool"),
    CallType(word=CUSTOM_TOOL_CALL, group="custom_tool_actions", tool="custom_tool"),
    CallType(word=SHELL_CALL, group="shell_actions", tool="shell"),
    CallType(word=LOCAL_SHELL_CALL, group="local_shell_actions", tool="local_shell"),
    CallType(word=APPLY_PATCH_CALL, group="apply_patch_actions", tool="apply_patch"),
    CallType(word=COMPUTER_CALL, group="computer_actions", tool="computer"),
)
"""Every type of call."""

LOCAL_CALLS = frozenset(each.word for each in CALL_TYPES)
CALL_RESULTS = frozenset(f"{word}_output" for word in LOCAL_CALLS)
CALL_GROUPS = {each.group: each.tool for each in CALL_TYPES} | {"handoffs": HANDOFF}
"""The lists of calls in the JSON of a turn, and the key of the tool in each; a handoff is a call of a function."""
