"""`--context JSON`, and the context of a run in `timestep runs show`."""

from __future__ import annotations

import json
import textwrap

import pytest
from command_line import Shop

PROGRAM = """
    import dataclasses, datetime
    from agents import Agent, RunContextWrapper, function_tool
    from shop import Scripted
    from timestep import register_agents

    @dataclasses.dataclass
    class Desk:
        since: datetime.date
        tags: set[str] = dataclasses.field(default_factory=set)

    @function_tool
    def note(context: RunContextWrapper[Desk]) -> str:
        context.context.tags.add("seen")
        return f"{type(context.context).__name__} {context.context.since.year}"

    script = lambda done, said: "noted" if done else [("c1", "note", {})]
    desk = Agent(name="desk", model=Scripted("tiny-1", script), tools=[note])
    register_agents(desk, context_type=Desk)
"""


@pytest.fixture
def desk(shop: Shop) -> Shop:
    (shop.folder / "desk.py").write_text(textwrap.dedent(PROGRAM))
    return shop


def test_a_run_takes_its_context_as_json_and_shows_it_afterwards(desk: Shop) -> None:
    words = ("run", "Go", "--agent", "desk:desk", "--id", "typed", "--context", '{"since": "2026-01-02"}')
    first, bodies = desk.call(*words), desk.bodies()
    assert (first.returncode, first.stdout) == (0, "noted\n"), first.stderr
    assert desk.call(*words).stdout == "noted\n"
    assert desk.bodies() == bodies

    shown = json.loads(desk.call("runs", "show", "typed", "--json").stdout)
    assert shown["context"] == {"since": "2026-01-02", "tags": ["seen"]}
    assert '{"since": "2026-01-02", "tags": ["seen"]}' in desk.call("runs", "show", "typed").stdout
    assert "Desk 2026" in desk.call("runs", "steps", "typed", "--json").stdout

    other = desk.call(*words[:-1], '{"since": "2027-01-02"}')
    assert other.returncode == 2
    assert "is known with another context" in other.stderr


@pytest.mark.parametrize(("text", "problem"), [("{", "is not JSON"), ('{"since": "soon"}', "--context is no Desk")])
def test_a_context_that_is_none_is_refused(desk: Shop, text: str, problem: str) -> None:
    refused = desk.call("run", "Go", "--agent", "desk:desk", "--context", text)
    assert refused.returncode == 2
    assert problem in refused.stderr


def test_queued_runs_and_schedules_take_a_context_too(desk: Shop) -> None:
    queued = desk.call("run", "Go", "--agent", "someone", "--detach", "--id", "queued", "--context", '{"a": [1]}')
    assert queued.returncode == 0, queued.stderr
    assert json.loads(desk.call("runs", "show", "queued", "--json").stdout)["context"] == {"a": [1]}

    made = desk.call(
        "schedules", "create", "nightly-desk", "0 0 1 1 *", "Go", "--agent", "someone", "--context", '{"a": 2}'
    )
    assert made.returncode == 0, made.stderr
    run_id = desk.call("schedules", "trigger", "nightly-desk").stdout.strip()
    assert json.loads(desk.call("runs", "show", run_id, "--json").stdout)["context"] == {"a": 2}
