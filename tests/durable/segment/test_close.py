"""What a closed segment leaves in the tables: all of it or nothing, once."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator
from typing import Any

import pytest
from agents import Agent, function_tool
from agents.testing import ModelStep, ScriptedModel, assistant_message, function_call
from agents.usage import Usage

from timestep import RunStateStore, Session, run_agent_workflow, wait_run
from timestep.client.runs import resume_run
from timestep.durable.process.engine import engine as launched
from timestep.errors import RunCancelledError, RunFailedError
from timestep.store.runs import mark_cancelled

FILLED_AT_THE_END = ("tool_calls", "usage", "run_states", "approvals")

FAIL = """
create sequence timestep.failures;
create function timestep.fail() returns trigger language plpgsql as $$ begin
  if nextval('timestep.failures') <= {times} then raise exception 'disk on fire' using errcode = '{code}'; end if;
  return new;
end $$;
create trigger fail before insert on timestep.{table} for each row execute function timestep.fail();
"""


@function_tool
def look(thing: str) -> str:
    return f"{thing} seen"


@function_tool(needs_approval=True)
def pay(amount: int) -> str:
    return f"paid {amount}"


def clerk() -> Agent[Any]:
    spent = Usage(requests=1, input_tokens=10, output_tokens=2, total_tokens=12)
    return Agent(
        name="clerk",
        instructions="Look first.",
        tools=[look, pay],
        model=ScriptedModel(
            [
                ModelStep(output=[function_call("look", {"thing": "sea"}, call_id="c1")], usage=spent),
                ModelStep(output=[assistant_message("done")], usage=spent),
            ]
        ),
    )


def asker() -> Agent[Any]:
    return Agent(
        name="clerk",
        tools=[look, pay],
        model=ScriptedModel(
            [
                [function_call("look", {"thing": "sea"}, call_id="c1")],
                [
                    function_call("look", {"thing": "sky"}, call_id="c2"),
                    function_call("pay", {"amount": 3}, call_id="c3"),
                ],
                [assistant_message("done")],
            ]
        ),
    )


def rows_of(engine: Any, run_id: str, session_id: str) -> dict[str, int]:
    counts = {
        table: engine.value(f"select count(*) from timestep.{table} where run_id = %s", run_id)
        for table in FILLED_AT_THE_END
    }
    counts["session_items"] = engine.value(
        "select count(*) from timestep.session_items where session_id = %s", session_id
    )
    return counts


async def test_a_finished_run_fills_every_table(engine: Any, new_id: str) -> None:
    await run_agent_workflow(clerk(), "Look", f"s-{new_id}", workflow_id=new_id, context={"shop": 1}, max_turns=5)

    run = engine.run(new_id)
    assert (run["status"], run["reason"], run["error"], run["output"]) == ("succeeded", None, None, "done")
    assert (run["agent"], run["last_agent"], run["session_id"]) == ("clerk", "clerk", f"s-{new_id}")
    assert (run["segment"], run["closed_segment"], run["attempt"]) == (1, 1, 1)
    assert (run["input"], run["context"], run["options"]["max_turns"]) == ("Look", {"shop": 1}, 5)
    assert (run["requests"], run["input_tokens"], run["output_tokens"]) == (2, 20, 4)
    assert run["created_at"] <= run["started_at"] <= run["finished_at"]
    assert run["executor_id"]
    assert run["executed_seconds"] >= 0
    [agent] = engine.query("select * from timestep.agents where hash = %s", run["agent_hash"])
    assert agent["name"] == "clerk"
    described = agent["definition"]["agents"]["clerk"]
    assert described["instructions"] == "Look first."
    assert [tool["name"] for tool in described["tools"]] == ["look", "pay"]
    [state] = engine.query("select * from timestep.run_states where run_id = %s", new_id)
    assert (state["kind"], state["sdk"], state["agent"], state["output"]) == ("final", "python", "clerk", "done")
    assert state["state"]["$schemaVersion"] == state["schema_version"]
    items = engine.query(
        "select position, run_id, item from timestep.session_items where session_id = %s order by position",
        f"s-{new_id}",
    )
    assert [row["item"].get("type", row["item"].get("role")) for row in items] == [
        "user", "function_call", "function_call_output", "message",
    ]  # fmt: skip
    assert {row["run_id"] for row in items} == {new_id}
    assert [row["position"] for row in items] == [1, 2, 3, 4]
    assert rows_of(engine, new_id, f"s-{new_id}") == {
        "tool_calls": 1, "usage": 2, "run_states": 1, "approvals": 0, "session_items": 4,
    }  # fmt: skip


async def test_an_interrupted_run_stores_its_question_and_holds_the_open_turn_back(engine: Any, new_id: str) -> None:
    agent = asker()

    result = await run_agent_workflow(agent, "Pay", f"s-{new_id}", workflow_id=new_id)

    assert result.status == "interrupted"
    run = engine.run(new_id)
    assert (run["status"], run["reason"], run["finished_at"]) == ("interrupted", "approval", None)
    [approval] = engine.query("select * from timestep.approvals where run_id = %s", new_id)
    assert (approval["status"], approval["tool"], approval["call_id"]) == ("open", "pay", "c3")
    assert (approval["agent"], approval["segment"], approval["session_id"]) == ("clerk", 1, f"s-{new_id}")
    assert approval["arguments"] == '{"amount":3}'
    assert approval["arguments_digest"] == hashlib.sha256(b'{"amount":3}').hexdigest()
    [state] = engine.query("select kind, held_items from timestep.run_states where run_id = %s", new_id)
    assert state["kind"] == "interrupted"
    items = await Session(f"s-{new_id}").get_items()
    assert [item.get("type", item.get("role")) for item in items] == ["user", "function_call", "function_call_output"]
    assert {item["call_id"] for item in state["held_items"] if "call_id" in item} >= {"c2"}
    loaded = await RunStateStore(agent, session_id=f"s-{new_id}").load()
    assert [item.name for item in loaded.get_interruptions()] == ["pay"]


async def test_a_definition_is_stored_once_and_a_changed_one_is_another_row(engine: Any, new_id: str) -> None:
    first, same = clerk(), clerk()
    for number, agent in enumerate((first, same)):
        agent.name = f"clerk-{new_id}"
        await run_agent_workflow(agent, "Look", workflow_id=f"{new_id}-{number}")

    assert engine.value("select count(*) from timestep.agents where name = %s", f"clerk-{new_id}") == 1
    assert engine.run(f"{new_id}-0")["agent_hash"] == engine.run(f"{new_id}-1")["agent_hash"]


async def test_nothing_is_in_the_tables_while_the_run_runs(engine: Any, new_id: str) -> None:
    seen = []

    @function_tool
    def count() -> str:
        seen.append((engine.status(new_id), rows_of(engine, new_id, f"s-{new_id}")))
        return "counted"

    agent = Agent(
        name="counter",
        tools=[look, count],
        model=ScriptedModel(
            [
                [function_call("look", {"thing": "sea"}, call_id="c1")],
                [function_call("count", {}, call_id="c2")],
                [assistant_message("done")],
            ]
        ),
    )

    await run_agent_workflow(agent, "Count", f"s-{new_id}", workflow_id=new_id)

    [(status, counts)] = seen
    assert status == "running"
    assert set(counts.values()) == {0}


@pytest.fixture
def failing(engine: Any) -> Iterator[Any]:
    """Make the first inserts into a table fail."""
    tables = []

    def make(table: str, *, code: str, times: int) -> None:
        tables.append(table)
        engine.query(FAIL.format(table=table, code=code, times=times))

    yield make
    for table in tables:
        engine.query(f"drop trigger fail on timestep.{table}")
    engine.query("drop function if exists timestep.fail(); drop sequence if exists timestep.failures;")


@pytest.mark.parametrize("table", ["session_items", "tool_calls", "usage", "run_states"])
async def test_a_closing_that_fails_for_a_moment_is_made_again_and_stored_once(
    engine: Any, failing: Any, table: str, new_id: str
) -> None:
    failing(table, code="40001", times=2)

    result = await run_agent_workflow(clerk(), "Look", f"s-{new_id}", workflow_id=new_id)

    assert result.output == "done"
    assert engine.value("select last_value from timestep.failures") > 2
    assert rows_of(engine, new_id, f"s-{new_id}") == {
        "tool_calls": 1, "usage": 2, "run_states": 1, "approvals": 0, "session_items": 4,
    }  # fmt: skip


@pytest.mark.usefixtures("quick_chores")
@pytest.mark.parametrize("table", ["usage", "run_states"])
async def test_a_closing_that_fails_for_good_leaves_nothing_and_the_run_fails(
    engine: Any, failing: Any, table: str, new_id: str
) -> None:
    failing(table, code="P0001", times=1000)

    with pytest.raises(RunFailedError, match=r"(?s)The engine could not go on: .*disk on fire"):
        await run_agent_workflow(clerk(), "Look", f"s-{new_id}", workflow_id=new_id)

    assert set(rows_of(engine, new_id, f"s-{new_id}").values()) == {0}
    run = engine.run(new_id)
    assert (run["status"], run["reason"], run["output"]) == ("failed", "engine_error", None)


async def test_no_key_of_a_tracing_service_is_stored(engine: Any, new_id: str) -> None:
    await run_agent_workflow(clerk(), "Look", workflow_id=new_id, run_config={"workflow_name": "Shop"})

    assert "tracing_api_key" not in str(engine.query("select state from timestep.run_states where run_id = %s", new_id))


async def test_a_run_that_is_cancelled_at_its_very_end_can_be_resumed(engine: Any, new_id: str) -> None:
    connector = launched().connector

    @function_tool
    def look() -> str:
        connector.database.run_sync(mark_cancelled, new_id, reason="cancelled")  # and here who cancels is slow
        return "seen"

    model = ScriptedModel([[function_call("look", {}, call_id="c1")], [assistant_message("done")]])
    with pytest.raises(RunCancelledError):
        await run_agent_workflow(Agent(name="clerk", tools=[look], model=model), "Look", workflow_id=new_id)
    assert engine.status(new_id) == "cancelled"
    engine.wait_until_refused(new_id)

    await asyncio.to_thread(resume_run, connector, new_id)
    assert (await wait_run(new_id)).output == "done"
    assert len(engine.steps(new_id)) == 3
