"""The SDK's native local tools: their executors run once, their results survive the journal."""

from __future__ import annotations

from typing import Any

import pytest
from agents import (
    Agent,
    ApplyPatchTool,
    AsyncComputer,
    Computer,
    ComputerTool,
    CustomTool,
    LocalShellTool,
    ShellTool,
)
from agents.editor import ApplyPatchOperation, ApplyPatchResult
from agents.testing import ScriptedModel, assistant_message
from agents.tool import ShellCallOutcome, ShellCommandOutput, ShellResult
from openai.types.responses import (
    ResponseApplyPatchToolCall,
    ResponseComputerToolCall,
    ResponseCustomToolCall,
    ResponseFunctionShellToolCall,
)
from openai.types.responses.response_output_item import LocalShellCall

from timestep import current_tool_call, run_agent_workflow

SHELL_CALL = ResponseFunctionShellToolCall.model_validate(
    {"id": "s1", "call_id": "s1", "type": "shell_call", "status": "completed",
     "action": {"commands": ["ls", "pwd"], "timeout_ms": None, "max_output_length": None}}
)  # fmt: skip
LOCAL_SHELL_CALL = LocalShellCall.model_validate(
    {"id": "l1", "call_id": "l1", "type": "local_shell_call", "status": "completed",
     "action": {"type": "exec", "command": ["ls"], "env": {}}}
)  # fmt: skip
CUSTOM_CALL = ResponseCustomToolCall(call_id="k1", input="select 1", name="query", type="custom_tool_call")
COMPUTER_CALL = ResponseComputerToolCall.model_validate(
    {"id": "p1", "call_id": "p1", "type": "computer_call", "status": "completed", "pending_safety_checks": [],
     "action": {"type": "click", "x": 1, "y": 2, "button": "left"}}
)  # fmt: skip
PATCH_CALL = ResponseApplyPatchToolCall.model_validate(
    {"id": "a1", "call_id": "a1", "type": "apply_patch_call", "status": "completed",
     "operation": {"type": "create_file", "path": "a.txt", "diff": "+hello"}}
)  # fmt: skip


def shell(log: list[str]) -> Any:
    async def execute(request: Any) -> ShellResult:
        log.append("shell")
        commands = request.data.action.commands
        return ShellResult(
            output=[
                ShellCommandOutput(command=each, stdout=f"{each}!", outcome=ShellCallOutcome(type="exit", exit_code=0))
                for each in commands
            ]
        )

    return ShellTool(executor=execute), SHELL_CALL, "tool_call:1:shell:s1"


def shell_of_text(log: list[str]) -> Any:
    def execute(request: Any) -> str:
        log.append(current_tool_call().call_id)
        return "a.txt"

    return ShellTool(executor=execute), SHELL_CALL, "tool_call:1:shell:s1"


def local_shell(log: list[str]) -> Any:
    def execute(request: Any) -> str:
        log.append("local_shell")
        return "a.txt"

    return LocalShellTool(executor=execute), LOCAL_SHELL_CALL, "tool_call:1:local_shell:l1"


def custom(log: list[str]) -> Any:
    async def query(context: Any, text: str) -> str:
        log.append(text)
        return "1 row"

    return CustomTool(name="query", description="Ask", on_invoke_tool=query), CUSTOM_CALL, "tool_call:1:query:k1"


def patch(log: list[str]) -> Any:
    class Editor:
        def create_file(self, operation: ApplyPatchOperation) -> ApplyPatchResult:
            log.append(f"create {operation.path}")
            return ApplyPatchResult(status="completed", output="made")

        def update_file(self, operation: ApplyPatchOperation) -> ApplyPatchResult:
            raise AssertionError("not asked for")

        def delete_file(self, operation: ApplyPatchOperation) -> ApplyPatchResult:
            raise AssertionError("not asked for")

    return ApplyPatchTool(editor=Editor()), PATCH_CALL, "tool_call:1:apply_patch:a1"


def _screen(log: list[str]) -> dict[str, Any]:
    def name_of(name: str) -> Any:
        def action(self: Any, *arguments: Any) -> None:
            log.append(name)

        return action

    actions = ("click", "double_click", "scroll", "type", "wait", "move", "keypress", "drag")
    return {name: name_of(name) for name in actions}


def computer(log: list[str]) -> Any:
    screen = _screen(log) | {"screenshot": lambda self: log.append("screenshot") or "QUJD"}
    return ComputerTool(type("Screen", (Computer,), screen)()), COMPUTER_CALL, "tool_call:1:computer:p1"


def async_computer(log: list[str]) -> Any:
    def make(action: Any) -> Any:
        async def call(self: Any, *arguments: Any) -> Any:
            return action(self, *arguments)

        return call

    screen = {name: make(action) for name, action in _screen(log).items()}
    screen["screenshot"] = make(lambda self: log.append("screenshot") or "QUJD")
    return ComputerTool(type("Screen", (AsyncComputer,), screen)()), COMPUTER_CALL, "tool_call:1:computer:p1"


@pytest.mark.parametrize(
    "make", [shell, shell_of_text, local_shell, custom, patch, computer, async_computer], ids=lambda make: make.__name__
)
async def test_a_local_executor_is_a_step_that_runs_once(engine: Any, make: Any, new_id: str) -> None:
    log: list[str] = []
    tool, call, step = make(log)
    agent = Agent(name="assistant", tools=[tool], model=ScriptedModel([[call], [assistant_message("done")]]))

    live = await run_agent_workflow(agent, "Go", workflow_id=new_id)
    ran = log.copy()
    copy, replayed = await engine.replay(new_id)

    assert ran
    assert log == ran
    assert live.output == replayed.output == "done"
    assert replayed.to_input_list() == live.to_input_list()
    assert engine.steps(new_id) == ["model_turn:1:assistant", step, "model_turn:2:assistant"]
    assert engine.steps(copy) == engine.steps(new_id)
    [row] = engine.query("select tool, call_id, agent from timestep.tool_calls where run_id = %s", new_id)
    assert row["call_id"] == call.call_id


@pytest.mark.parametrize("make", [shell, local_shell, custom, patch, computer], ids=lambda make: make.__name__)
async def test_the_result_is_that_of_a_plain_run(engine: Any, make: Any, new_id: str) -> None:
    from agents import Runner

    tool, call, _ = make([])
    plain = Agent(name="assistant", tools=[tool], model=ScriptedModel([[call], [assistant_message("done")]]))
    durable = Agent(name="assistant", tools=[tool], model=ScriptedModel([[call], [assistant_message("done")]]))

    expected = await Runner.run(plain, "Go")
    result = await run_agent_workflow(durable, "Go", workflow_id=new_id)

    assert result.to_input_list() == [item.to_input_item() for item in expected.new_items]


async def test_a_failing_executor_tells_the_model_live_and_replayed(engine: Any, new_id: str) -> None:
    log = []

    def execute(request: Any) -> str:
        log.append(1)
        raise OSError("no disk")

    agent = Agent(
        name="assistant",
        tools=[ShellTool(executor=execute)],
        model=ScriptedModel([[SHELL_CALL], [assistant_message("done")]]),
    )

    live = await run_agent_workflow(agent, "Go", workflow_id=new_id)
    _, replayed = await engine.replay(new_id)

    assert log == [1]
    assert replayed.to_input_list() == live.to_input_list()
    assert engine.output(new_id, "tool_call:1:shell:s1")["error"]["message"] == "no disk"


async def test_a_result_that_json_does_not_know_is_the_text_that_the_model_reads(engine: Any, new_id: str) -> None:
    async def odd(context: Any, text: str) -> Any:
        return {1, 2}

    tool = CustomTool(name="query", description="Ask", on_invoke_tool=odd)
    agent = Agent(name="assistant", tools=[tool], model=ScriptedModel([[CUSTOM_CALL], [assistant_message("done")]]))

    assert (await run_agent_workflow(agent, "Go", workflow_id=new_id)).output == "done"
    assert engine.output(new_id, "tool_call:1:query:k1")["ok"] == "{1, 2}"


async def test_each_operation_of_a_patch_is_a_call_of_its_own_beside_any_other_call_id(
    engine: Any, new_id: str
) -> None:
    log: list[str] = []
    tool, _, _ = patch(log)
    other = PATCH_CALL.model_copy(update={"id": "a1.2", "call_id": "a1.2"})
    agent = Agent(
        name="assistant", tools=[tool], model=ScriptedModel([[PATCH_CALL, other], [assistant_message("done")]])
    )

    await run_agent_workflow(agent, "Go", workflow_id=new_id)

    rows = engine.query("select call_key from timestep.tool_calls where run_id = %s order by 1", new_id)
    assert [row["call_key"] for row in rows] == ["1:a1", "1:a1.2"]
    assert log == ["create a.txt"] * 2
