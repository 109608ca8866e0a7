"""The context of a run: the same live, replayed, after an approval and later; what is not kept is told at its tool."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import decimal
import enum
import logging
import threading
from typing import Any

import pytest
from agents import (
    Agent,
    GuardrailFunctionOutput,
    InputGuardrail,
    OutputGuardrail,
    RunContextWrapper,
    RunHooks,
    RunResult,
    function_tool,
    handoff,
)
from agents.testing import function_call
from pydantic import BaseModel, Field, field_validator
from turns import Turns
from zoo import describe

from timestep import approve, register_agents, run_agent_workflow, wait_run
from timestep.durable.start import read_result
from timestep.errors import NotDurableError

NOON = datetime.datetime(2026, 1, 2, 12, tzinfo=datetime.UTC)


class Size(enum.Enum):
    SMALL = 1
    LARGE = 2


@dataclasses.dataclass
class Line:
    price: decimal.Decimal


@dataclasses.dataclass
class Desk:
    at: datetime.datetime = datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC)
    price: decimal.Decimal = decimal.Decimal(0)
    tags: set[str] = dataclasses.field(default_factory=set)
    size: Size = Size.SMALL
    lines: list[Line] = dataclasses.field(default_factory=list)
    note: str = ""


class Account(BaseModel):
    cents: int = Field(alias="dollars")
    seen_at: datetime.datetime = NOON
    hidden: str = Field(default="", exclude=True)

    @field_validator("cents", mode="before")
    @classmethod
    def of_dollars(cls, value: Any) -> Any:
        return value * 100


def acting(act: Any, **named: Any) -> Agent[Any]:
    """An agent that lets `act` change the context, waits for a person, and tells what it sees."""

    @function_tool
    def change(context: RunContextWrapper[Any]) -> str:
        act(context.context)
        return "changed"

    @function_tool(needs_approval=True)
    def allow() -> str:
        return "allowed"

    @function_tool
    def look(context: RunContextWrapper[Any]) -> str:
        return describe(context.context)

    calls = [function_call(name, {}, call_id=name) for name in ("change", "allow", "look")]
    return Agent(name="acting", model=Turns(*calls, "done"), tools=[change, allow, look], **named)


def told(result: Any, call: str = "change") -> str:
    found = [item.raw_item for item in result.new_items if item.type == "tool_call_output_item"]
    return next(item["output"] for item in found if item["call_id"] == call)


def filled() -> Desk:
    return Desk(NOON, decimal.Decimal("1.10"), {"a"}, Size.LARGE, [Line(decimal.Decimal(2))])


def change_desk(desk: Desk) -> None:
    desk.lines.append(Line(decimal.Decimal(3)))
    desk.tags.add("b")
    desk.note = "seen"


def change_type(desk: Desk) -> None:
    desk.note = {"at": NOON, 1: (1, 2)}  # type: ignore[assignment]
    desk.at = "later"  # type: ignore[assignment]


def change_account(account: Account) -> None:
    account.seen_at = NOON + datetime.timedelta(days=1)
    account.hidden = "kept"


def change_dict(context: dict[Any, Any]) -> None:
    context["at"], context["pair"], context[7] = NOON, (1, {2}), Size.LARGE
    del context["old"]


def change_list(context: list[Any]) -> None:
    context.append({"at": 1})


@pytest.mark.parametrize(
    ("context", "act"),
    [
        (filled(), change_desk), (filled(), change_type), (Account(dollars=5), change_account),
        ({"old": 1, "kept": 2}, change_dict), ([1, 2], change_list),
    ],
    ids=["dataclass", "other types", "model", "dict", "list"],
)  # fmt: skip
async def test_a_context_is_the_same_live_replayed_after_an_approval_and_read_again(
    engine: Any, new_id: str, context: Any, act: Any, caplog: pytest.LogCaptureFixture
) -> None:
    agent = acting(act)
    register_agents(agent, context_type=None if isinstance(context, (dict, list)) else type(context))

    parked = await run_agent_workflow(agent, "Go", workflow_id=new_id, context=context)
    expected = describe(parked.context)
    _, replayed = await engine.replay(new_id)
    await approve(new_id, "allow", by="ann")
    ended = await wait_run(new_id)
    again = await read_result(new_id)

    act(context)
    assert expected == describe(context)
    assert [describe(each.context) for each in (replayed, ended, again)] == [expected] * 3
    assert told(ended, "look") == expected
    assert told(ended) == "changed"
    assert "RunState context was" not in caplog.text


async def test_a_validator_of_a_context_is_not_applied_again(engine: Any, new_id: str) -> None:
    agent = acting(lambda account: None)
    register_agents(agent, context_type=Account)

    parked = await run_agent_workflow(agent, "Go", workflow_id=new_id, context=Account(dollars=5))
    await approve(new_id, "allow", by="ann")
    ended = await wait_run(new_id)

    assert (parked.context.cents, ended.context.cents) == (500, 500)


@pytest.mark.parametrize(
    ("context", "kind"), [({"note": "old"}, None), (Desk(note="old"), Desk)], ids=["dict", "dataclass"]
)
async def test_what_is_not_kept_is_told_at_the_tool_and_undone(
    engine: Any, new_id: str, context: Any, kind: type | None
) -> None:
    def spoil(context: Any) -> None:
        if isinstance(context, dict):
            context["note"] = {"inner": [threading.Lock()]}
            context["more"] = threading.Lock()
        else:
            context.note = {"inner": [threading.Lock()]}

    agent = acting(spoil)
    register_agents(agent, context_type=kind)

    parked = await run_agent_workflow(agent, "Go", workflow_id=new_id, context=context)
    _, replayed = await engine.replay(new_id)
    await approve(new_id, "allow", by="ann")
    ended = await wait_run(new_id)

    assert told(parked).startswith("changed\n\nThe tool has run")
    assert "context.note.inner[0] is a _thread.lock" in told(parked)
    assert "do not call it again" in told(parked)
    assert told(parked) == told(replayed) == told(ended)
    assert describe(parked.context) == describe(replayed.context) == describe(ended.context) == describe(context)
    assert ended.output == "done"


class Spoiling(RunHooks[Any]):
    """Hooks that put into the context what JSON cannot keep."""

    async def on_agent_end(self, context: Any, agent: Any, output: Any) -> None:
        context.context.note = threading.Lock()


async def test_a_run_that_is_over_succeeds_whatever_a_hook_left_in_its_context(
    engine: Any, new_id: str, caplog: pytest.LogCaptureFixture
) -> None:
    agent = Agent(name="acting", model=Turns("done"))
    register_agents(agent, context_type=Desk, hooks=Spoiling())

    with caplog.at_level(logging.ERROR, "timestep"):
        result = await run_agent_workflow(agent, "Go", workflow_id=new_id, context=filled())

    assert (result.output, engine.status(new_id)) == ("done", "succeeded")
    assert "context.note is a _thread.lock" in caplog.text
    assert (await read_result(new_id)).context.price == decimal.Decimal("1.10")


async def test_parallel_calls_that_change_one_part_have_their_order_on_a_replay(engine: Any, new_id: str) -> None:
    second_is_done = threading.Event()

    @function_tool
    def first(context: RunContextWrapper[Any]) -> str:
        second_is_done.wait(30)
        context.context["log"].append("first")
        return "1"

    @function_tool
    def second(context: RunContextWrapper[Any]) -> str:
        context.context["log"].append("second")
        return "2"

    class Ends(RunHooks[Any]):
        async def on_tool_end(self, context: Any, agent: Any, tool: Any, result: Any) -> None:
            if tool.name == "second":
                second_is_done.set()

    calls = [function_call("first", {}, call_id="a"), function_call("second", {}, call_id="b")]
    agent = Agent(name="acting", model=Turns(calls, "done"), tools=[first, second])
    register_agents(agent, hooks=Ends())

    live = await run_agent_workflow(agent, "Go", workflow_id=new_id, context={"log": []})
    _, replayed = await engine.replay(new_id)

    assert live.context == replayed.context == {"log": ["second", "first"]}


async def test_what_guardrails_and_handoffs_change_comes_back_too(engine: Any, new_id: str) -> None:
    def note(name: str) -> Any:
        def change(context: Any, *others: Any) -> GuardrailFunctionOutput:
            context.context.setdefault("seen", set()).add(name)
            return GuardrailFunctionOutput(output_info={name}, tripwire_triggered=False)

        return change

    second = Agent(
        name="second", model=Turns("done"), output_guardrails=[OutputGuardrail(guardrail_function=note("output"))]
    )
    agent = Agent(
        name="first", model=Turns(function_call("transfer_to_second", {}, call_id="h")),
        handoffs=[handoff(second, on_handoff=lambda context: note("handoff")(context) and None)],
        input_guardrails=[InputGuardrail(guardrail_function=note("input"))],
    )  # fmt: skip
    register_agents(agent)

    live = await run_agent_workflow(agent, "Go", workflow_id=new_id, context={})
    _, replayed = await engine.replay(new_id)

    assert live.context == replayed.context == {"seen": {"input", "handoff", "output"}}
    assert replayed.output == "done"


async def test_a_context_that_would_not_come_back_is_refused_at_the_door_with_its_field(engine: Any) -> None:
    agent = acting(lambda context: None)
    for context, part in (
        ({"a": [threading.Lock()]}, r"context\.a\[0\]"),
        ({"f": collections.abc.Sized}, r"context\.f"),
    ):
        with pytest.raises(NotDurableError, match=part):
            await run_agent_workflow(agent, "Go", context=context)


async def test_a_state_given_as_input_keeps_the_context_of_its_type(engine: Any, new_id: str) -> None:
    agent = acting(change_desk)
    register_agents(agent, context_type=Desk)
    parked = await run_agent_workflow(agent, "Go", context=filled())
    state = parked.to_state()
    state.approve(state.get_interruptions()[0])

    branch = await run_agent_workflow(agent, state, workflow_id=new_id, branch=True)

    assert describe(branch.context) == describe(parked.context)
    assert isinstance(parked.ended, RunResult)
