"""The older form of `RunStateStore`: a JSON file, written whole or not at all, and no database."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from agents import Agent, Runner, RunState, function_tool
from agents.testing import ScriptedModel, assistant_message, function_call

from timestep import RunStateStore, SnapshotAlreadyResumed, run_agent
from timestep.errors import InvalidInputError, RunStateNotFoundError, SnapshotDamagedError
from timestep.run_state.envelope import python_snapshot
from timestep.run_state.state_file import KEPT_SNAPSHOTS, load_from_file, save_to_file
from timestep.store import process_database


@pytest.fixture(autouse=True)
def _no_database(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any) -> Any:
        raise AssertionError("a database was opened")

    monkeypatch.setattr(process_database, "_open", refuse)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "agent_state.json"


def desk(*answers: str) -> Agent[Any]:
    @function_tool(needs_approval=True)
    def refund(order: str) -> str:
        """Refund an order."""
        return "refunded"

    model = ScriptedModel([[function_call("refund", {"order": "7"}, call_id="call_1")]] if not answers else [])
    for answer in answers:
        model.enqueue([assistant_message(answer)])
    return Agent(name="desk", model=model, tools=[refund])


async def interrupted() -> RunState[Any, Any]:
    return (await Runner.run(desk(), "Refund order 7")).to_state()


async def test_the_older_documents_program_runs_without_a_database(path: Path) -> None:
    agent = desk()
    state_store = RunStateStore(str(path), agent)
    with pytest.raises(FileNotFoundError, match=r"agent_state\.json"):
        await state_store.load()
    result = await run_agent(agent, "Refund order 7")
    state = result.to_state()
    await state_store.save(state)

    agent = desk("Order 7 is refunded.")
    state_store = RunStateStore(path, agent)
    loaded_state = await state_store.load()
    assert loaded_state.to_json() == state.to_json()
    for interruption in loaded_state.get_interruptions():
        loaded_state.approve(interruption)
    result = await run_agent(agent, loaded_state)
    assert result.output == "Order 7 is refunded."
    with pytest.raises(SnapshotAlreadyResumed, match=r"agent_state\.json was resumed by a plain run"):
        await run_agent(agent, loaded_state)

    await state_store.save(result.to_state())
    assert (await run_agent(agent, await state_store.load())).output == "Order 7 is refunded."
    await state_store.close()
    await state_store.close()


async def test_the_file_holds_the_same_envelope_as_a_row(path: Path) -> None:
    state = await interrupted()
    store = RunStateStore(path, desk())
    assert await store.save(state) == 1

    document = json.loads(path.read_text())
    assert (document["format"], document["version"]) == ("timestep.run_state", 1)
    [entry] = document["snapshots"]
    assert json.loads(entry["state"]) == state.to_json()
    assert (entry["kind"], entry["agent"], entry["sdk"], entry["is_saved"]) == ("interrupted", "desk", "python", True)
    assert (entry["schema_version"], entry["session_id"]) == (state.to_json()["$schemaVersion"], store.session_id)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o640)
    await store.save(state)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


async def test_clearing_a_file_hides_its_states_and_keeps_them(path: Path) -> None:
    store = RunStateStore(path, desk())
    await store.clear()
    assert not path.exists()
    await store.save(await interrupted())
    await store.clear()
    await store.clear()
    with pytest.raises(RunStateNotFoundError):
        await store.load()
    assert (await store.load(snapshot_id=1)).get_interruptions()
    with pytest.raises(RunStateNotFoundError, match="7"):
        await store.load(snapshot_id=7)
    assert await store.save(await interrupted()) == 2
    assert (await store.load()).get_interruptions()


async def test_many_writers_lose_nothing_and_the_file_keeps_the_newest(path: Path) -> None:
    store, state = RunStateStore(path, desk()), await interrupted()
    numbers = await asyncio.gather(*(store.save(state) for _ in range(KEPT_SNAPSHOTS + 3)))
    assert sorted(numbers) == list(range(1, KEPT_SNAPSHOTS + 4))
    assert len(json.loads(path.read_text())["snapshots"]) == KEPT_SNAPSHOTS
    assert load_from_file(path, 3) is None
    assert load_from_file(path, 4) is not None


EDITS = {
    "cut": lambda text: text[: len(text) // 2],
    "empty": lambda text: "",
    "state": lambda text: text.replace("Refund order 7", "Refund order 8"),
    "kind": lambda text: text.replace('"interrupted"', '"final"'),
    "other file": lambda text: json.dumps({"name": "package"}),
    "list": lambda text: "[]",
    "newer version": lambda text: text.replace('"version": 1', '"version": 2'),
    "field gone": lambda text: text.replace('"digest_of_rest"', '"digest_of_most"'),
}


@pytest.mark.parametrize("edit", EDITS)
async def test_a_file_that_was_cut_or_edited_is_refused_and_left_as_it_is(path: Path, edit: str) -> None:
    store = RunStateStore(path, desk())
    await store.save(await interrupted())
    edited = EDITS[edit](path.read_text())
    assert edited != path.read_text()
    path.write_text(edited)
    with pytest.raises(SnapshotDamagedError):
        await store.load()
    if edit not in ("state", "kind", "field gone"):
        with pytest.raises(SnapshotDamagedError, match=r"agent_state\.json"):
            await store.save(await interrupted())
        assert path.read_text() == edited


def test_a_write_that_is_killed_leaves_the_file_before_it(path: Path) -> None:
    save_to_file(path, python_snapshot({"$schemaVersion": "1.0"}, agent="desk", sdk_version="0"))
    before = path.read_text()
    program = (
        "import os, sys; from pathlib import Path\n"
        "from timestep.run_state import state_file\n"
        "from timestep.run_state.envelope import python_snapshot\n"
        "os.replace = lambda *names: os.kill(os.getpid(), 9)\n"
        "snapshot = python_snapshot({'$schemaVersion': '2'}, agent='a', sdk_version='0')\n"
        "state_file.save_to_file(Path(sys.argv[1]), snapshot)"
    )
    ended = subprocess.run([sys.executable, "-c", program, str(path)], check=False)
    assert ended.returncode == -9
    assert path.read_text() == before
    assert save_to_file(path, python_snapshot({"$schemaVersion": "1.0"}, agent="desk", sdk_version="0")) == 2


async def test_a_link_stays_a_link_and_a_failed_write_leaves_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = path.with_name("link.json")
    store = RunStateStore(link, desk())
    path.write_text('{"format": "timestep.run_state", "version": 1, "snapshots": []}')
    link.symlink_to(path)
    await store.save(await interrupted())
    assert link.is_symlink()
    assert load_from_file(path) is not None

    def fail(*args: Any) -> None:
        raise OSError("no space")

    names = set(os.listdir(path.parent))
    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="no space"):
        await store.save(await interrupted())
    assert set(os.listdir(path.parent)) == names


async def test_a_file_and_a_database_at_once_are_refused(path: Path) -> None:
    with pytest.raises(InvalidInputError, match="not in both"):
        RunStateStore(path, desk(), "postgresql://localhost/x")  # pyright: ignore[reportCallIssue, reportArgumentType]
    with pytest.raises(InvalidInputError, match="not str"):
        RunStateStore("state.json")  # pyright: ignore[reportCallIssue, reportArgumentType]
