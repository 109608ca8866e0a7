"""Values and contexts between processes: recorded by a script, read after kill -9 by a worker that imports it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

PROGRAM = """
    import asyncio, dataclasses, datetime, json, os, sys
    from decimal import Decimal
    from agents import Agent, Model, ModelResponse, RunContextWrapper, function_tool
    from agents.testing import assistant_message, function_call
    from agents.usage import Usage
    from pydantic import BaseModel, Field
    from timestep import register_agents, run_agent_workflow

    class Order(BaseModel):
        order_id: str = Field(alias="orderId")
        price: Decimal
        tags: set[str] = set()

    @dataclasses.dataclass
    class Desk:
        at: datetime.datetime
        order: Order | None = None
        names: set[str] = dataclasses.field(default_factory=set)

    class Refused(Exception):
        pass

    @function_tool
    def find(context: RunContextWrapper[Desk]) -> Order:
        with open("found", "a") as file:
            file.write("x")
        order = Order(orderId="7", price="1.10", tags={"red", "green", "blue", "black"})
        context.context.order, context.context.names = order, {"ann", "ben", "cid", "dan"}
        return order

    @function_tool
    async def hang(context: RunContextWrapper[Desk]) -> str:
        if os.path.exists("hang"):
            print("hanging", flush=True)
            await asyncio.sleep(600)
        desk = context.context
        return f"{type(desk).__name__} {desk.at} {desk.order.price} {sorted(desk.names)} {sorted(desk.order.tags)}"

    class Says(Model):
        async def get_response(self, system_instructions, input, *args, **kwargs):
            with open("read", "a") as file:
                file.write(json.dumps([item["output"] for item in input if "output" in item]) + "\\n")
            calls = sum(1 for item in input if item.get("type") == "function_call")
            turns = [function_call("find", {}, call_id="a"), function_call("hang", {}, call_id="b")]
            output = turns[calls] if calls < 2 else assistant_message("done")
            return ModelResponse(output=[output], usage=Usage(), response_id=None)

        def stream_response(self, *args, **kwargs):
            raise NotImplementedError

    agent = Agent(name="desk", model=Says(), tools=[find, hang])
    register_agents(agent, context_type=Desk)

    async def main():
        desk = Desk(datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC))
        result = await run_agent_workflow(agent, "Go", workflow_id="order-7", context=desk)
        looked = [item.output for item in result.new_items if item.type == "tool_call_output_item"]
        print(json.dumps([result.output, repr(type(looked[0])), str(looked[0].price), sorted(looked[0].tags), looked[1],
                          repr(type(result.context)), sorted(result.context.names)]))

    if __name__ == "__main__":
        asyncio.run(main())
"""


@pytest.fixture
def folder(tmp_path: Path, engine: Any, new_database: Any, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, str]:
    (tmp_path / "app.py").write_text(textwrap.dedent(PROGRAM))
    application = new_database()
    monkeypatch.setenv("TIMESTEP_APP_NAME", application)
    return tmp_path, application


def start(folder: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *words], cwd=folder, env=os.environ, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


@pytest.mark.slow
@pytest.mark.parametrize("worker", ["app", "app.py"])
def test_the_classes_of_the_started_script_come_back_in_a_worker_after_kill_9(
    folder: tuple[Path, str], worker: str, journal_of: Any, until: Any
) -> None:
    place, application = folder
    (place / "hang").touch()
    killed = start(place, "app.py")
    assert killed.stdout is not None
    assert killed.stdout.readline() == "hanging\n"
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    (place / "hang").unlink()

    process = start(place, "-m", "timestep", "worker", worker)
    try:
        until(lambda: journal_of(application).status("order-7") in ("succeeded", "failed"), "the worker takes it over")
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)

    assert journal_of(application).run("order-7")["error"] is None
    read = start(place, "app.py")
    out, errors = read.communicate(timeout=120)
    assert read.returncode == 0, errors
    tags, names = ["black", "blue", "green", "red"], ["ann", "ben", "cid", "dan"]
    looked = f"Desk 2026-01-02 00:00:00+00:00 1.10 {names} {tags}"
    expected = ["done", "<class '__main__.Order'>", "1.10", tags, looked, "<class '__main__.Desk'>", names]
    assert json.loads(out) == expected
    assert (place / "found").read_text() == "x"
    read_by_model = [json.loads(line) for line in (place / "read").read_text().splitlines()]
    assert len({line[0] for line in read_by_model if line}) == 1  # a set has another order in each process
