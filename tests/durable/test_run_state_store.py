"""`RunStateStore`: what is saved in one process goes on in another."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import pytest
from agents import Agent, RunConfig, Runner, RunState, function_tool
from agents.testing import ScriptedModel, assistant_message, function_call

from timestep.client.sessions import Session
from timestep.durable.run_state_store import RunStateStore
from timestep.errors import InvalidInputError, UnsupportedError
from timestep.store.connection import Database
from timestep.store.migrations import stored_revision
from timestep.store.run_states import latest_of_run, latest_snapshot, save_snapshot

QUIET = RunConfig(tracing_disabled=True)


class Desk:
    """An agent whose refunds need a person, as it stands in any process, and what it did."""

    def __init__(self, *answers: str) -> None:
        self.refunded: list[str] = []

        @function_tool(needs_approval=True)
        def refund(order: str) -> str:
            """Refund an order."""
            self.refunded.append(order)
            return "refunded"

        self.model = ScriptedModel([[function_call("refund", {"order": "7"}, call_id="call_1")]] if not answers else [])
        for answer in answers:
            self.model.enqueue([assistant_message(answer)])
        self.agent: Agent[Any] = Agent(name="desk", model=self.model, tools=[refund])


@dataclasses.dataclass
class Opaque:
    handle: object


async def test_the_documented_program_interrupts_saves_loads_approves_and_goes_on(
    process_database: Database,
) -> None:
    session = Session()
    before = Desk()
    store = RunStateStore(agent=before.agent, session_id=await session._get_session_id())  # pyright: ignore[reportPrivateUsage] - as documented
    with pytest.raises(FileNotFoundError, match=session.session_id):
        await store.load()

    result = await Runner.run(before.agent, "Refund order 7", session=session, run_config=QUIET)
    assert result.interruptions
    await store.save(result.to_state())
    await store.close()

    after = Desk("Order 7 is refunded.")
    async with RunStateStore(agent=after.agent, session_id=session.session_id) as other:
        state = await other.load()
        for interruption in state.get_interruptions():
            state.approve(interruption)
        result = await Runner.run(after.agent, state, session=session, run_config=QUIET)
        await other.save(result.to_state())

    assert result.final_output == "Order 7 is refunded."
    assert (before.refunded, after.refunded) == ([], ["7"])
    snapshot = process_database.run_sync(latest_snapshot, session.session_id)
    assert snapshot is not None
    assert (snapshot.kind, snapshot.agent, snapshot.run_id) == ("final", "desk", None)
    assert isinstance(await store.load(), RunState)


async def test_an_interrupted_state_is_kept_whole(process_database: Database) -> None:
    desk = Desk()
    state = await interrupted(desk)
    store = RunStateStore(desk.agent)
    await store.save(state)

    snapshot = process_database.run_sync(latest_snapshot, store.session_id)
    assert snapshot is not None
    assert snapshot.kind == "interrupted"
    assert (snapshot.sdk, snapshot.schema_version) == ("python", state.to_json()["$schemaVersion"])
    assert snapshot.state == state.to_json()


async def test_the_newest_state_is_loaded_also_when_many_save_at_once(process_database: Database) -> None:
    desk = Desk()
    state = await interrupted(desk)
    store = RunStateStore(desk.agent)
    await asyncio.gather(*(store.save(state) for _ in range(8)))
    state.approve(state.get_interruptions()[0], always_approve=True)
    await store.save(state)

    assert (await store.load()).to_json() == state.to_json()


async def test_clearing_hides_the_states_and_keeps_them(process_database: Database) -> None:
    desk = Desk()
    store, other = RunStateStore(desk.agent), RunStateStore(desk.agent)
    state = await interrupted(desk)
    await store.save(state)
    await other.save(state)
    run_snapshot = process_database.run_sync(latest_snapshot, store.session_id)
    assert run_snapshot is not None
    process_database.run_sync(save_snapshot, dataclasses.replace(run_snapshot, run_id="run", is_saved=False))

    await store.clear()
    await store.clear()

    with pytest.raises(FileNotFoundError):
        await store.load()
    assert await other.load()
    assert process_database.run_sync(latest_of_run, "run") is not None


async def test_without_a_session_id_one_is_made_and_can_be_read() -> None:
    agent = Agent[Any](name="desk")

    assert RunStateStore(agent).session_id != RunStateStore(agent).session_id
    with pytest.raises(InvalidInputError):
        RunStateStore(agent, " ")


async def test_a_connection_string_is_a_database_of_its_own(empty_database: Database) -> None:
    desk = Desk()
    store = RunStateStore(desk.agent, "s", empty_database.url)
    state = await interrupted(desk)
    await asyncio.gather(store.save(state), store.save(state))
    await store.close()
    await store.close()

    assert stored_revision(empty_database) is not None
    assert empty_database.run_sync(latest_snapshot, "s") is not None


async def test_what_is_no_agent_or_no_state_is_refused_with_what_to_write(process_database: Database) -> None:
    with pytest.raises(InvalidInputError, match="not str") as refusal:
        RunStateStore("desk")  # pyright: ignore[reportArgumentType]
    assert "agent=agent" in refusal.value.hint

    desk = Desk("Hello.")
    result = await Runner.run(desk.agent, "Hi", run_config=QUIET)
    with pytest.raises(InvalidInputError, match="not RunResult") as refusal:
        await RunStateStore(desk.agent).save(result)  # pyright: ignore[reportArgumentType]
    assert "to_state()" in refusal.value.hint


async def test_a_context_that_would_be_lost_is_refused(process_database: Database) -> None:
    desk = Desk()
    result = await Runner.run(desk.agent, "Refund", context=Opaque(object()), run_config=QUIET)

    with pytest.raises(InvalidInputError, match="Opaque"):
        await RunStateStore(desk.agent, "s").save(result.to_state())
    assert process_database.run_sync(latest_snapshot, "s") is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"sdk": "javascript", "sdk_version": "0.20.0", "schema_version": "1.22"},
            r"javascript .*0\.20\.0.*1\.22",
        ),
        ({"schema_version": "1.999", "sdk_version": "9.0.0"}, r"1\.999.*9\.0\.0.*up to 1\.21"),
    ],
)
async def test_a_snapshot_that_cannot_be_read_is_refused_by_name(
    process_database: Database, change: dict[str, Any], message: str
) -> None:
    desk = Desk()
    store = RunStateStore(desk.agent, "s")
    await store.save(await interrupted(desk))
    snapshot = process_database.run_sync(latest_snapshot, "s")
    assert snapshot is not None
    process_database.run_sync(save_snapshot, dataclasses.replace(snapshot, **change))

    with pytest.raises(UnsupportedError, match=message):
        await store.load()


async def interrupted(desk: Desk) -> RunState[Any, Any]:
    result = await Runner.run(desk.agent, "Refund order 7", run_config=QUIET)
    assert result.interruptions
    return result.to_state()
