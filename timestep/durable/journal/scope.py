"""Where an effect belongs: the segment, the Runner.run inside it, the turn, and the step ids of the turn's calls.

When a model response arrives, live or replayed, `Scope.plan` draws the step ids of all its local calls in the
model's order. The calls may then run in parallel and finish in any order: each has its id already.
"""

from __future__ import annotations

import contextlib
import contextvars
import hashlib
import time
from collections import deque
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from agents import Agent, FunctionTool, ModelSettings, RunContextWrapper, Tool
from dbos import DBOS, StepReservation

from timestep.durable.journal.halt import Halt
from timestep.durable.journal.stream_writer import StreamWriter
from timestep.durable.seams import dbos_sdk
from timestep.durable.seams.agents_sdk import apply_patch_operations, is_agent_tool
from timestep.durable.seams.known_steps import Known
from timestep.durable.seams.sdk_calls import call_id_of, field_of
from timestep.errors import UnsupportedError
from timestep.records import Approval, RunLimits
from timestep.store.segments import Used
from timestep.words import APPLY_PATCH_CALL, LOCAL_CALLS

BLOCK_SIZES = (1 << 20, 1 << 13, 1 << 7)
"""Step ids for each of several parallel sub-agents, by depth. Step ids are INT4: 2047 blocks fit at the top."""

MAX_KEY_CHARACTERS = 64
"""Longest call id that stands in a key as it is. Keys of nested calls are joined, and Postgres indexes them."""


@dataclass(kw_only=True)
class Record:
    """What the closing transaction stores of a segment's finished steps, in the order in which they are known.

    `refused_turns` are answers of models that were paid for, and that a fallback took the place of.
    """

    tool_calls: list[dict[str, Any]] = field(default_factory=list)
    model_turns: list[dict[str, Any]] = field(default_factory=list)
    refused_turns: list[dict[str, Any]] = field(default_factory=list)
    mcp_tools: dict[str, Any] = field(default_factory=dict)


@dataclass(kw_only=True)
class Segment:
    """The executing segment, shared by all of its scopes.

    `attempt` counts the executions of this segment: 1 means that nothing of it was started before. A fork goes on
    from the copied journal of a failed segment; `copies` counts the segments whose journal it has copied. A foreign one
    is a workflow of the program's own, without a run.
    `waiting_calls` are those of its model calls that wait for a rate limit now.
    `is_live`: a step has run that was not recorded before.
    """

    run_id: str
    number: int = 1
    attempt: int = 1
    is_fork: bool = False
    copies: int = 0
    is_foreign: bool = False
    is_live: bool = False
    stream: bool = False
    max_result_bytes: int
    record: Record = field(default_factory=Record)
    decisions: Sequence[Approval] = ()
    limits: RunLimits | None = None
    used: Used = field(default_factory=Used)
    started_at: float = field(default_factory=time.monotonic)
    halt: Halt = field(default_factory=Halt)
    writer: StreamWriter = field(default_factory=StreamWriter)
    known: Known = field(default_factory=Known)
    context_changes: dict[tuple[int, Any], tuple[int, int, float]] = field(default_factory=dict)
    waiting_calls: int = 0


@dataclass(kw_only=True)
class CallSlot:
    """The step ids of one tool call. `block` is the private id range of a sub-agent that has parallel siblings."""

    key: str
    calls: deque[StepReservation] = field(default_factory=deque)
    input_guardrails: deque[StepReservation] = field(default_factory=deque)
    output_guardrails: deque[StepReservation] = field(default_factory=deque)
    block: Any = None


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What the model reads of the `output` of a call: `text`, None for the output's own, and a `note` after it."""

    output: Any
    text: Any
    note: str | None


@dataclass(kw_only=True)
class Scope:
    """One Runner.run inside the workflow: that of the run, or that of an agent used as a tool.

    `path` is empty at the top and `<turn>:<call>/` below each outer call; it makes step names and keys unique.
    `is_quiet`: nobody looks at the events of its models. `is_turn_live`: the answer of this turn's model was not
    recorded before, so that none of its calls was started. `shown`, by call id, is what the model reads of outputs
    whose text was recorded.
    """

    segment: Segment
    path: str = ""
    depth: int = 0
    turn: int = 0
    runs: int = 0
    is_foreign: bool = False
    is_quiet: bool = False
    is_turn_live: bool = False
    settings: ModelSettings | None = None
    last_step_id: int = dbos_sdk.LARGEST_STEP_ID
    slots: dict[str, deque[CallSlot]] = field(default_factory=dict)
    taken: list[tuple[object, CallSlot]] = field(default_factory=list)
    guardrails: list[tuple[object, StepReservation]] = field(default_factory=list)
    shown: dict[str, Shown] = field(default_factory=dict)

    def reserve(self) -> StepReservation:
        """Draw the next step id.

        Raises:
            UnsupportedError: the block of a parallel sub-agent is used up.
        """
        reservation = DBOS.reserve_step()
        if reservation.step_id > self.last_step_id:
            raise UnsupportedError(
                f"The sub-agent at {self.path!r} needs more than {BLOCK_SIZES[self.depth - 1]:,} steps.",
                hint="Parallel sub-agents share the step ids of their run: nest them less deep, or start runs instead.",
            )
        return reservation

    @property
    def turn_of_run(self) -> int:
        """The turn of the run itself, of a sub-agent that in which its outermost call is."""
        return int(self.path.partition(":")[0]) if self.path[:1].isdigit() else self.turn

    def step_name(self, kind: str, *parts: str) -> str:
        """Return the name of a step of this turn: unique in the workflow, readable, the same on every attempt."""
        return ":".join((f"{self.path}{kind}", str(self.turn), *parts))

    def call_key(self, slot: CallSlot) -> str:
        """Return the key of a call within its run: `turn:call`, preceded by those of the outer calls."""
        return f"{self.path}{self.turn}:{slot.key}"

    @property
    def attempt(self) -> int:
        """The number of the start of a call of this turn, over the executions of all segments that have its turn."""
        return self.segment.attempt + (0 if self.is_turn_live else self.segment.copies)

    def plan(self, calls: Iterable[Any], tools: Sequence[Tool]) -> None:
        """Draw the step ids of all local calls of one model response, in the model's order.

        Plain calls come first, one id each and more for their guardrails. A single sub-agent goes on with the
        counter of its caller; two or more get a block of ids each.
        """
        by_name = {tool.name: tool for tool in tools if isinstance(tool, FunctionTool)}
        self.slots, self.taken = {}, []
        nested: list[CallSlot] = []
        for call in calls:
            if field_of(call, "type") not in LOCAL_CALLS:
                continue
            call_id = call_id_of(call)
            same = self.slots.setdefault(call_id, deque())
            slot = CallSlot(key=_key_of(call_id) + (f"#{len(same) + 1}" if same else ""))
            same.append(slot)
            tool = by_name.get(str(field_of(call, "name")))
            if tool is not None and tool.tool_input_guardrails:
                slot.input_guardrails.extend((self.reserve(), self.reserve()))  # before and after an approval
            if is_agent_tool(tool):
                nested.append(slot)
            else:
                slot.calls.extend(self.reserve() for _ in range(_effects_of(call)))
            if tool is not None and tool.tool_output_guardrails:
                slot.output_guardrails.append(self.reserve())
        if len(nested) > 1:
            for slot in nested:
                slot.block = self._reserve_block()

    def slot_of(self, call_id: str, owner: object) -> CallSlot:
        """Return the slot of a call; `owner` is what tells calls with the same id apart, such as its ToolContext."""
        for known, slot in self.taken:
            if known is owner:
                return slot
        waiting = self.slots.get(call_id)
        slot = waiting.popleft() if waiting else CallSlot(key=_key_of(call_id))
        self.taken.append((owner, slot))
        return slot

    def below(self, slot: CallSlot) -> Scope:
        """Return the scope of the sub-agent that a call starts."""
        path = f"{self.call_key(slot)}/"
        if slot.block is None:
            return Scope(segment=self.segment, path=path, depth=self.depth, last_step_id=self.last_step_id)
        last = slot.block.function_id + BLOCK_SIZES[self.depth]
        return Scope(segment=self.segment, path=path, depth=self.depth + 1, last_step_id=last)

    def _reserve_block(self) -> Any:
        if self.depth >= len(BLOCK_SIZES):
            raise UnsupportedError(
                f"Parallel sub-agents are nested more than {len(BLOCK_SIZES)} deep at {self.path!r}.",
                hint="Set `parallel_tool_calls=False` on the inner agents, or start runs instead of sub-agents.",
            )
        return dbos_sdk.reserve_block(BLOCK_SIZES[self.depth])


_scope: contextvars.ContextVar[Scope | None] = contextvars.ContextVar("timestep_scope", default=None)


def active_scope() -> Scope | None:
    """Return the scope of this task, or None outside a durable run and inside a step."""
    scope = _scope.get()
    return scope if scope is not None and dbos_sdk.is_in_workflow() else None


def is_durable() -> bool:
    """Whether this task belongs to a durable run, inside a step or outside."""
    return _scope.get() is not None


@contextlib.contextmanager
def entered(scope: Scope) -> Generator[Scope]:
    """Make `scope` the scope of this task and of the tasks that it starts."""
    token = _scope.set(scope)
    try:
        yield scope
    finally:
        _scope.reset(token)


def agent_name(agent: Agent[Any]) -> str:
    """Return an agent's name as step names show it."""
    return agent.name.replace("/", "%2F")


def _key_of(call_id: str) -> str:
    """Return a call id as keys and step names show it; a long one by its beginning and its SHA-256."""
    key = quote(call_id, safe="", errors="surrogatepass")
    if len(key) <= MAX_KEY_CHARACTERS:
        return key
    return f"{key[:MAX_KEY_CHARACTERS]}#{hashlib.sha256(key.encode()).hexdigest()}"


def _effects_of(call: Any) -> int:
    if field_of(call, "type") != APPLY_PATCH_CALL and field_of(call, "name") != "apply_patch":
        return 1
    try:
        return max(1, len(apply_patch_operations(call, context_wrapper=RunContextWrapper(None))))
    except Exception:  # noqa: BLE001 - the SDK reports a malformed call itself when it executes it
        return 1
