"""A release that lacks what the short ways need: a run goes the packages' own way, one line says so, same journal."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from dbos import StepReservation
from dbos._schemas.system_database import SystemSchema

from timestep.durable.seams.release_check import DBOS_RELEASE, Release
from timestep.embedded_postgres import EmbeddedPostgres

CHANGES = """
    import inspect
    import types

    def hide(module, name):
        class Without(types.ModuleType):
            def __getattribute__(self, asked):
                if asked == name:
                    raise AttributeError(f"module {module!r} has no attribute {name!r}")
                return super().__getattribute__(asked)

        module.__class__ = Without  # the module itself still finds it

    def take_more(owner, name):
        function = getattr(owner, name)

        def with_more(*arguments, new=None, **named):
            return function(*arguments, **named)

        parameters = inspect.signature(function).parameters.values()
        new = inspect.Parameter("new", inspect.Parameter.KEYWORD_ONLY, default=None)
        with_more.__qualname__ = function.__qualname__
        with_more.__signature__ = inspect.Signature([*parameters, new])
        setattr(owner, name, with_more)
"""

PROGRAM = """
    import asyncio
    import sys

    from agents import Agent, function_tool
    from agents.testing import ScriptedModel, assistant_message, function_call

    from timestep import run_agent_workflow

    @function_tool
    async def look(thing: str) -> str:
        print("looked", thing)
        return f"{thing} seen"

    @function_tool
    async def fail() -> str:
        raise ValueError("no")

    guide = Agent(name="guide", model=ScriptedModel([[function_call("look", {"thing": "map"}, call_id="m1")],
                                                     [assistant_message("left")]]))
    guide.tools.append(look)
    calls = [function_call("look", {"thing": "sea"}, call_id="c1"), function_call("fail", {}, call_id="c2"),
             function_call("guide", {"input": "where?"}, call_id="c3")]
    agent = Agent(name="clerk", tools=[look, fail, guide.as_tool("guide", "Ask the guide.")],
                  model=ScriptedModel([calls, [assistant_message("done")]]))

    async def main():
        result = await run_agent_workflow(agent, "Go", workflow_id="run-1")
        print(result.output)

    asyncio.run(main())
"""

STEPS = """
    select function_id, function_name, output::json ->> 'ok' is null as is_error, error, serialization, application_name
    from dbos.operation_outputs where workflow_uuid = 'run-1' order by function_id
"""


@pytest.fixture
def run_with(
    tmp_path: Path,
    server: EmbeddedPostgres,
    new_database: Callable[[], str],
    settings_of_module: pytest.MonkeyPatch,
    journal_of: Callable[[str], Any],
) -> Callable[..., Any]:
    """Run the program in a process of its own with a change of the packages; return its output, log and journal."""

    def run(change: str = "", name: str = "") -> tuple[str, str, list[dict[str, Any]]]:
        name = name or new_database()
        (tmp_path / "app.py").write_text(f"{textwrap.dedent(CHANGES)}\n{change}\n{textwrap.dedent(PROGRAM)}")
        environment = {**os.environ, "PG_CONNECTION_URI": server.url(name), "TIMESTEP_APP_NAME": "clerks"}
        done = subprocess.run(
            [sys.executable, "app.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout, done.stderr, journal_of(name).query(STEPS)

    return run


LACKING = """
import agents.run_internal.agent_tool_configuration as sdk
hide(sdk, "_observe_tools")

import sqlalchemy as sa
from dbos._schemas.system_database import SystemSchema
from dbos._sys_db import SystemDatabase
SystemSchema.operation_outputs.append_column(sa.Column("new", sa.Text))
take_more(SystemDatabase, "record_operation_result")
"""


def test_a_run_goes_the_packages_own_way_to_the_same_journal(
    run_with: Callable[..., Any], new_database: Callable[[], str]
) -> None:
    name = new_database()
    output, log, journal = run_with(name=name)
    assert "short way" not in log
    assert [row["function_name"] for row in journal] == [
        "model_turn:1:clerk", "tool_call:1:look:c1", "tool_call:1:fail:c2", "1:c3/model_turn:1:guide",
        "1:c3/tool_call:1:look:m1", "1:c3/model_turn:2:guide", "model_turn:2:clerk",
    ]  # fmt: skip

    own_output, own_log, own_journal = run_with(LACKING)
    assert own_output == output == "looked sea\nlooked map\ndone\n"
    assert own_journal == journal
    lines = [line for line in own_log.splitlines() if "without a short way" in line]
    assert len(lines) == 2
    assert "openai-agents" in lines[0]
    assert "has no attribute '_observe_tools'" in lines[0]
    assert "dbos" in lines[1]
    assert "The table operation_outputs has the columns" in lines[1]

    again, _, journal_again = run_with(LACKING, name)  # what was recorded the short way is found
    assert again == "done\n"
    assert journal_again == journal


@pytest.mark.parametrize(
    ("parameters", "problem"),
    [(["self", "other"], "takes ['self'], expected ['self', 'other']"), (["self"], "")],
    ids=["other-parameters", "as-expected"],
)
def test_what_a_release_lacks_is_said_once(
    caplog: pytest.LogCaptureFixture, parameters: list[str], problem: str, new_id: str
) -> None:
    release, done = Release("package>=1"), 0
    for _ in range(2):
        with release.optional(new_id):
            release.check(Release.__hash__, parameters)
            done += 1
    assert done == (0 if problem else 2)
    assert [problem in record.getMessage() for record in caplog.records] == ([True] if problem else [])


def test_a_name_that_is_not_there_is_optional_too(caplog: pytest.LogCaptureFixture, new_id: str) -> None:
    with Release("package>=1").optional(new_id):
        Release.nothing  # type: ignore[attr-defined]  # noqa: B018
    with Release("package>=1").optional(f"{new_id}-module"):
        from timestep import nothing  # type: ignore[attr-defined]  # noqa: F401
    assert ["nothing" in record.getMessage() for record in caplog.records] == [True, True]


def test_a_necessary_name_is_not() -> None:
    with pytest.raises(ImportError, match=r"has no _nothing: this version of timestep works with dbos>=3\.4,<3\.5"):
        DBOS_RELEASE.check_attributes(StepReservation, ["_claim", "_nothing"])
    with pytest.raises(ImportError, match="The table streams has the columns"):
        DBOS_RELEASE.check_columns(SystemSchema.streams, ["key"], are_all=True)
    DBOS_RELEASE.check_columns(SystemSchema.streams, ["key"])
