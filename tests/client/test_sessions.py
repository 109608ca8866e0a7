"""`timestep.Session`: the Agents SDK's session protocol on Postgres."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import agents
import pytest
from agents import Agent, RunConfig, Runner, SessionSettings
from agents.testing import ScriptedModel, assistant_message, function_call

from timestep.client.sessions import Session
from timestep.errors import DatabaseNotReadyError, InvalidInputError, SettingsError
from timestep.settings import reset_settings, resolve_settings, set_current_settings
from timestep.store.connection import Database
from timestep.store.process_database import (
    current_database,
    open_current_database,
    open_other_database,
    reset_current_database,
)

QUIET = RunConfig(tracing_disabled=True)


@agents.function_tool
def look_up_order(order: str) -> str:
    """Look up an order."""
    return f"order {order} is on its way"


def test_it_satisfies_the_protocol_of_the_sdk() -> None:
    assert isinstance(Session(), agents.Session)


def test_making_one_loads_no_agents_sdk_and_opens_no_database(checkout: Path) -> None:
    code = (
        "import sys; from timestep.client.sessions import Session; print(repr(Session('mine')));"
        "from timestep.store import process_database; assert process_database._current is None;"
        "assert 'agents' not in sys.modules"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=checkout, check=False)

    assert (result.stdout, result.stderr) == ("Session('mine')\n", "")


async def test_its_id_is_given_or_made_up() -> None:
    session = Session("order 7")
    assert await session._get_session_id() == "order 7"  # pyright: ignore[reportPrivateUsage] - as documented
    assert Session().session_id != Session().session_id
    with pytest.raises(InvalidInputError):
        Session("")


async def test_items_are_added_read_popped_and_cleared(process_database: Database) -> None:
    session = Session("s")
    items = [{"role": "user", "content": str(number)} for number in range(4)]
    await session.add_items(items)
    await session.add_items([])

    assert await session.get_items() == items
    assert await session.get_items(limit=2) == items[2:]
    assert await Session("s").pop_item() == items[3]
    assert await session.get_items() == items[:3]
    await session.clear_session()
    assert await session.get_items() == []
    assert await session.pop_item() is None


async def test_the_limit_of_its_settings_holds_unless_one_is_given(database: Database) -> None:
    session = Session("s", database=database)
    session.session_settings = SessionSettings(limit=1)
    await session.add_items([{"n": 1}, {"n": 2}, {"n": 3}])

    assert await session.get_items() == [{"n": 3}]
    assert await session.get_items(2) == [{"n": 2}, {"n": 3}]


async def test_the_runner_keeps_a_conversation_in_it(process_database: Database) -> None:
    model = ScriptedModel(
        [
            [function_call("look_up_order", {"order": "7"}, call_id="call_1")],
            [assistant_message("It is on its way.")],
            [assistant_message("You asked about order 7.")],
        ]
    )
    agent = Agent(name="clerk", model=model, tools=[look_up_order])

    await Runner.run(agent, "Where is order 7?", session=Session("chat"), run_config=QUIET)
    result = await Runner.run(agent, "What did I ask?", session=Session("chat"), run_config=QUIET)

    assert result.final_output == "You asked about order 7."
    items = await Session("chat").get_items()
    assert [item.get("role") or item["type"] for item in items] == [
        "user",
        "function_call",
        "function_call_output",
        "assistant",
        "user",
        "assistant",
    ]
    assert len(model.calls[-1].input) == 5


async def test_without_any_configuration_it_brings_its_database_up_by_itself(tmp_path: Path) -> None:
    set_current_settings(
        resolve_settings(
            environ={"TIMESTEP_PROBE_LOCAL": "0"},
            directory=tmp_path,
            data_directory=tmp_path / "data",
            name="shop",
        )
    )
    try:
        await asyncio.gather(*(Session("s").add_items([{"n": number}]) for number in range(3)))
        assert sorted(item["n"] for item in await Session("s").get_items()) == [0, 1, 2]
        assert current_database().is_embedded
        assert current_database() is await open_current_database()
        assert (tmp_path / "data" / "postgres").is_dir()
    finally:
        reset_current_database()
        reset_current_database()
        reset_settings()


@pytest.mark.parametrize("is_migrated", [True, False])
async def test_an_executor_that_may_not_migrate_refuses_an_empty_database(
    empty_database: Database, is_migrated: bool, tmp_path: Path
) -> None:
    set_current_settings(
        resolve_settings(
            environ={},
            directory=tmp_path,
            database_url=empty_database.url,
            run_migrations=is_migrated,
            name="shop",
        )
    )
    try:
        if is_migrated:
            assert await Session().get_items() == []
        else:
            with pytest.raises(DatabaseNotReadyError, match="no Timestep schema"):
                await Session().get_items()
            with pytest.raises(DatabaseNotReadyError, match="no Timestep schema"):
                current_database()
    finally:
        reset_current_database()
        reset_settings()


async def test_another_database_is_opened_on_purpose(empty_database: Database) -> None:
    other = await open_other_database(empty_database.url)
    await Session("s", database=other).add_items([{"n": 1}])
    assert await Session("s", database=empty_database).get_items() == [{"n": 1}]
    other.close()

    with pytest.raises(SettingsError):
        await open_other_database("mysql://x/y")
    with pytest.raises(DatabaseNotReadyError):
        await open_other_database("postgresql://127.0.0.1:1/nobody")
