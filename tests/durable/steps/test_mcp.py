"""MCP servers in durable runs, real ones: stdio and streamable HTTP, connected by the program or by the engine."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from agents import Agent
from agents.mcp import MCPServer, MCPServerStdio, MCPServerStreamableHttp
from agents.testing import ScriptedModel, assistant_message, function_call

from timestep import approve, reject, run_agent_workflow, wait_run
from timestep.durable.seams import agents_sdk
from timestep.durable.start import read_result

PROGRAM = str(Path(__file__).with_name("mcp_desk.py"))
Connect = Callable[[], MCPServer]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers_at(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "desk.log"


@pytest.fixture
def stdio(log: Path) -> Connect:
    return lambda: MCPServerStdio(
        params={"command": sys.executable, "args": [PROGRAM, "stdio", str(log)]},
        name="desk",
        client_session_timeout_seconds=60,
    )


@pytest.fixture
def http(log: Path, until: Any) -> Iterator[Connect]:
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, PROGRAM, "http", str(log), str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    until(lambda: answers_at(port), "the desk answers")
    yield lambda: MCPServerStreamableHttp(
        params={"url": f"http://127.0.0.1:{port}/mcp"}, name="desk", client_session_timeout_seconds=60
    )
    process.kill()
    process.wait()


@pytest.fixture(params=["stdio", "http"])
def connect(request: pytest.FixtureRequest) -> Connect:
    return request.getfixturevalue(request.param)


def clerk(server: MCPServer) -> Agent[Any]:
    return Agent(
        name="clerk",
        mcp_servers=[server],
        model=ScriptedModel(
            [
                [
                    function_call("stamp", {"letter": "A"}, call_id="c1"),
                    function_call("stamp", {"letter": "B"}, call_id="c2"),
                ],
                [assistant_message("done")],
            ]
        ),
    )


async def test_lists_and_calls_of_a_server_of_the_program_are_steps(
    engine: Any, connect: Connect, log: Path, new_id: str
) -> None:
    async with connect() as server:
        agent = clerk(server)
        live = await run_agent_workflow(agent, "Stamp", workflow_id=new_id)

    assert live.output == "done"
    assert sorted(log.read_text().splitlines()) == ["stamp A", "stamp B"]
    steps = engine.steps(new_id)
    assert [step.split(":")[0] for step in steps] == [
        "mcp_list_tools", "model_turn", "tool_call", "tool_call", "mcp_list_tools", "model_turn",
    ]  # fmt: skip
    assert len(set(steps)) == len(steps)
    assert "tool_call:1:stamp:c1" in steps
    assert "A stamped" in str(engine.output(new_id, "tool_call:1:stamp:c1")["ok"])
    assert [tool["name"] for tool in engine.output(new_id, steps[0])["ok"]] == ["stamp", "tear"]


async def test_a_server_that_nobody_connected_is_connected_when_needed(
    engine: Any, connect: Connect, log: Path, new_id: str
) -> None:
    agent = clerk(connect())
    live = await run_agent_workflow(agent, "Stamp", workflow_id=new_id)

    assert live.output == "done"
    assert sorted(log.read_text().splitlines()) == ["stamp A", "stamp B"]


async def test_a_replay_needs_no_server(engine: Any, stdio: Connect, log: Path, new_id: str) -> None:
    async with stdio() as server:
        agent = clerk(server)
        live = await run_agent_workflow(agent, "Stamp", workflow_id=new_id)
    log.unlink()

    copy, replayed = await engine.replay(new_id)

    assert replayed.output == "done"
    assert replayed.to_input_list() == live.to_input_list()
    assert engine.steps(copy) == engine.steps(new_id)
    assert not log.exists()


async def test_parallel_runs_share_one_connection(engine: Any, stdio: Connect, log: Path, new_id: str) -> None:
    server = stdio()
    agents = [clerk(server) for _ in range(3)]
    for number, agent in enumerate(agents):
        agent.name = f"clerk{number}"
    results = await asyncio.gather(*(run_agent_workflow(agent, "Stamp") for agent in agents))

    assert [result.output for result in results] == ["done"] * 3
    assert len(log.read_text().splitlines()) == 6


async def test_an_error_of_a_tool_is_told_to_the_model(engine: Any, stdio: Connect, new_id: str) -> None:
    async with stdio() as server:
        agent = Agent(
            name="clerk",
            mcp_servers=[server],
            model=ScriptedModel([[function_call("tear", {"letter": "A"}, call_id="c1")], [assistant_message("done")]]),
        )
        live = await run_agent_workflow(agent, "Tear", workflow_id=new_id)

    assert live.output == "done"
    assert agent.model.last_call.input[-1]["type"] == "function_call_output"


async def test_an_approval_of_a_server_is_rebuilt_from_the_recorded_list(
    engine: Any, stdio: Connect, log: Path, new_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = stdio()
    server._needs_approval_policy = {"stamp": True, "tear": False}
    agent = clerk(server)
    result = await run_agent_workflow(agent, "Stamp", workflow_id=new_id)
    assert [item.tool_name for item in result.interruptions] == ["stamp", "stamp"]

    async def refuse(*arguments: Any, **named: Any) -> Any:
        raise AssertionError("the server is asked for its list")

    with monkeypatch.context() as patch:
        patch.setattr(agents_sdk, "list_mcp_tools", refuse)
        recorded = await read_result(new_id)
        assert [item.call_id for item in recorded.interruptions] == ["c1", "c2"]
        assert recorded.to_state().to_json()
    await approve(new_id, "c1", by="alice")
    await reject(new_id, "c2", by="alice")
    assert (await wait_run(new_id)).output == "done"
    assert log.read_text().splitlines() == ["stamp A"]
