"""An id that is known with other work: the error says what differs, and nothing of the engine's inside."""

from __future__ import annotations

import traceback
from typing import Any

import pytest
from agents import Agent
from agents.testing import ScriptedModel, assistant_message

from timestep import queue_agent_workflow, run_agent_workflow
from timestep.errors import RunInputMismatchError

DIFFERENT: dict[str, dict[str, Any]] = {
    "agent": {"agent": "other"},
    "input": {"input_items": "Other"},
    "session": {"session": "other"},
    "context": {"context": {"a": 2}},
    "agent and session": {"agent": "other", "session": "other"},
    "agent, input and context": {"agent": "other", "input_items": "Other", "context": None},
}


@pytest.mark.parametrize("what", DIFFERENT)
async def test_the_error_of_a_known_id_says_what_differs(engine: Any, new_id: str, what: str) -> None:
    agents = {name: Agent(name=name, model=ScriptedModel([[assistant_message("done")]])) for name in ("one", "other")}
    first: dict[str, Any] = {"agent": "one", "input_items": "Go", "session": f"s-{new_id}", "context": {"a": 1}}
    changed = first | DIFFERENT[what]
    changed["agent"], first["agent"] = agents[changed["agent"]], agents["one"]
    await run_agent_workflow(**first, workflow_id=new_id)

    for door in (run_agent_workflow, queue_agent_workflow):
        with pytest.raises(RunInputMismatchError) as caught:
            await door(**changed, workflow_id=new_id)
        assert str(caught.value) == f"The run {new_id!r} is known with another {what}."
        shown = "".join(traceback.format_exception(caught.value))
        assert "dbos" not in shown.lower()
        assert "During handling" not in shown
        assert shown.count("hint: ") == 1
