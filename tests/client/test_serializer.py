"""The journal is JSON, never pickle; sizes are limited; values survive the round trip."""

from __future__ import annotations

import base64
import pickle
from pathlib import Path
from typing import Any

import pytest
from agents import Agent, ToolsToFinalOutputResult, function_tool
from agents.testing import ScriptedModel, assistant_message, function_call
from dbos import DBOS, SetWorkflowID

import timestep
from timestep import run_agent_workflow
from timestep.client.serializer import JournalSerializer
from timestep.durable.process.engine import engine as launched_engine
from timestep.errors import JournalFormatError, ResultTooLargeError


class Evil:
    """Unpickling one makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


def busy() -> Agent[Any]:
    @function_tool
    def look(thing: str) -> dict[str, Any]:
        return {"thing": thing, "count": 2}

    return Agent(
        name="assistant",
        tools=[look],
        model=ScriptedModel([[function_call("look", {"thing": "sea"}, call_id="c1")], [assistant_message("done")]]),
    )


async def test_every_row_of_a_run_is_json_that_postgres_reads(engine: Any, new_id: str) -> None:
    await run_agent_workflow(busy(), "Look", workflow_id=new_id, stream=True, session=f"s-{new_id}")

    for table, columns in (
        ("operation_outputs", ("output", "error")),
        ("workflow_input", ("inputs",)),
        ("workflow_output", ("output", "error")),
        ("streams", ("value",)),
    ):
        for column in columns:
            where = f"from dbos.{table} where workflow_uuid = %s and {column} is not null"
            assert all(
                row["value"] is not None
                for row in engine.query(f"select json_typeof({column}::json) as value {where}", new_id)
            )
    for table in ("operation_outputs", "streams", "workflow_status"):
        rows = engine.query(f"select distinct serialization from dbos.{table} where workflow_uuid = %s", new_id)
        known = {"timestep_json", None}  # null where nothing is stored; DBOS's own JSON is that of a stream's end
        assert {row["serialization"] for row in rows} <= known | {"portable_json"}, table
    assert engine.output(new_id, "tool_call:1:look:c1")["ok"] == {"thing": "sea", "count": 2}
    assert engine.output(new_id, "model_turn:2:assistant")["ok"]["output"][0]["content"][0]["text"] == "done"


def mark_as_pickle(engine: Any, run_id: str, step: str, value: Any) -> None:
    text = base64.b64encode(pickle.dumps(value)).decode()
    engine.query(
        "update dbos.operation_outputs set output = %s, serialization = 'py_pickle'"
        " where workflow_uuid = %s and function_name = %s",
        text, run_id, step,
    )  # fmt: skip


async def test_a_row_marked_as_a_pickle_is_refused_by_the_executor(engine: Any, tmp_path: Path, new_id: str) -> None:
    await run_agent_workflow(busy(), "Look", workflow_id=new_id)
    trap = tmp_path / "sprung"
    mark_as_pickle(engine, new_id, "tool_call:1:look:c1", Evil(trap))

    with SetWorkflowID(f"trapped-{new_id}"):
        await DBOS.fork_workflow_async(new_id, 4, queue_name="timestep_segments")
    engine.wait_until_refused(f"trapped-{new_id}")

    assert not trap.exists()


async def test_a_row_marked_as_a_pickle_is_refused_by_a_client(engine: Any, tmp_path: Path, new_id: str) -> None:
    await run_agent_workflow(busy(), "Look", workflow_id=new_id)
    trap = tmp_path / "sprung"
    mark_as_pickle(engine, new_id, "tool_call:1:look:c1", Evil(trap))

    try:
        steps = launched_engine().client.list_workflow_steps(new_id)
    except JournalFormatError:
        steps = []

    assert all(not isinstance(step["output"], Evil) for step in steps)
    assert not trap.exists()


def test_a_pickle_is_refused_as_such(engine: Any, tmp_path: Path) -> None:
    from dbos._serialization import DefaultSerializer

    text = base64.b64encode(pickle.dumps(Evil(tmp_path / "sprung"))).decode()

    with pytest.raises(JournalFormatError, match="never loaded"):
        DefaultSerializer().deserialize(text)
    with pytest.raises(JournalFormatError, match="not JSON"):
        JournalSerializer().deserialize(text)
    assert not (tmp_path / "sprung").exists()


async def test_the_limit_of_a_result_is_a_setting(engine: Any, monkeypatch: pytest.MonkeyPatch, new_id: str) -> None:
    timestep.cleanup_dbos()
    monkeypatch.setenv("TIMESTEP_MAX_RESULT_BYTES", "2000")
    timestep.ensure_dbos_launched()
    try:

        @function_tool
        def write(length: int) -> str:
            return "x" * length

        agent = Agent(
            name="assistant",
            tools=[write],
            model=ScriptedModel(
                [
                    [
                        function_call("write", {"length": 1990}, call_id="c1"),
                        function_call("write", {"length": 3000}, call_id="c2"),
                    ],
                    [assistant_message("done")],
                ]
            ),
        )
        await run_agent_workflow(agent, "Write", workflow_id=new_id)
    finally:
        timestep.cleanup_dbos()
        monkeypatch.undo()
        timestep.ensure_dbos_launched()

    assert engine.output(new_id, "tool_call:1:write:c1")["ok"] == "x" * 1990
    assert "3,002 bytes, more than the limit of 2,000" in engine.output(new_id, "tool_call:1:write:c2")["ok"]


async def test_a_model_answer_over_the_limit_is_an_error_of_the_run(engine: Any, new_id: str) -> None:
    agent = Agent(name="assistant", model=ScriptedModel([[assistant_message("x" * 9_000_000)]]))

    for _ in range(2):
        with pytest.raises(ResultTooLargeError, match="more than the limit of 8,388,608"):
            await run_agent_workflow(agent, "Write", workflow_id=new_id)


async def test_a_final_output_that_cannot_come_back_is_its_text_and_the_run_succeeds(engine: Any, new_id: str) -> None:
    @function_tool
    def odd() -> str:
        return "odd"

    def decide(context: Any, results: Any) -> Any:
        return ToolsToFinalOutputResult(is_final_output=True, final_output=object())

    agent = Agent(
        name="assistant",
        tools=[odd],
        output_type=int,
        tool_use_behavior=decide,
        model=ScriptedModel([[function_call("odd", {}, call_id="c1")]]),
    )

    live = await run_agent_workflow(agent, "Go", workflow_id=new_id)
    again = await run_agent_workflow(agent, "Go", workflow_id=new_id)

    assert str(live.output) == again.output == engine.run(new_id)["output"]
    assert engine.run(new_id)["status"] == "succeeded"
