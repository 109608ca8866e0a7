"""Snapshots that real releases of the Agents SDK have written load and resume, for ever.

`tests/fixtures/run_state/<sdk>-<version>/` was written by `generate.py` there, with that release.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from timestep import RunStateStore, register_agents, run_agent, run_agent_workflow
from timestep.errors import UnsupportedError
from timestep.run_state.envelope import Snapshot, kind_of, python_snapshot, schema_version_of
from timestep.run_state.state_file import save_to_file

CORPUS = Path(__file__).resolve().parents[2] / "fixtures" / "run_state"

from corpus_agents import CASES, Cart, agent_of, dump_cart, result_of  # noqa: E402 - it is no package

PYTHON = sorted(CORPUS.glob("python-*/*.json"))
NEWEST = sorted(CORPUS.glob("python-0.24.*/*.json"))
WITHOUT_NESTED_STATES = ("1.0",)
"""Schemas that keep nothing of an interrupted agent that is used as a tool: it starts afresh, and asks again."""


def named(path: Path) -> str:
    return f"{path.parent.name}-{path.stem}"


def snapshot_of(path: Path) -> Snapshot:
    """Return the snapshot of a file; its kind and output are what a store notes beside the state."""
    written = json.loads(path.read_text(encoding="utf-8"))
    kind = kind_of(written["state"])
    output = result_of(written["case"])[0]
    return python_snapshot(
        written["state"],
        agent=agent_of(written["case"], []).name,
        sdk_version=written["sdk_version"],
        output=(output if isinstance(output, str) else output.model_dump()) if kind == "final" else None,
        is_saved=True,
    )


def store_of(path: Path, folder: Path, done: list[str]) -> RunStateStore:
    file = folder / "state.json"
    save_to_file(file, snapshot_of(path))
    return RunStateStore(
        file, agent_of(path.stem, done), context_serializer=dump_cart, context_deserializer=lambda data: Cart(**data)
    )


@pytest.mark.parametrize("path", PYTHON, ids=named)
async def test_a_snapshot_of_the_corpus_resumes_to_its_end(path: Path, tmp_path: Path, engine: Any) -> None:
    done: list[str] = []
    store = store_of(path, tmp_path, done)
    state = await store.load()
    for item in state.get_interruptions():
        state.approve(item)
    result = await run_agent(store.agent, state)
    if path.stem == "nested" and snapshot_of(path).schema_version in WITHOUT_NESTED_STATES:
        state = result.to_state()
        state.approve(result.interruptions[0])
        result = await run_agent(store.agent, state)

    assert (result.output, sorted(done)) == result_of(path.stem)
    if path.stem == "dataclass_context":
        assert result.context_wrapper.context == Cart("ada", ["7"])
    await store.save(result.to_state())
    assert (await run_agent(store.agent, await store.load())).output == result.output


@pytest.mark.parametrize("path", NEWEST, ids=named)
async def test_a_snapshot_of_the_newest_release_resumes_in_a_durable_run(
    path: Path, tmp_path: Path, engine: Any
) -> None:
    done: list[str] = []
    store = store_of(path, tmp_path, done)
    if path.stem == "dataclass_context":
        register_agents(store.agent, context_type=Cart)
    state = await store.load()
    for item in state.get_interruptions():
        state.approve(item)
    result = await run_agent_workflow(store.agent, state)
    assert (result.output, sorted(done)) == result_of(path.stem)


@pytest.mark.parametrize("path", sorted(CORPUS.glob("javascript-*/*.json")), ids=named)
async def test_a_snapshot_of_the_javascript_sdk_is_refused_by_name(path: Path, tmp_path: Path) -> None:
    written = json.loads(path.read_text(encoding="utf-8"))
    snapshot = Snapshot(
        run_id=None, session_id=None, segment=None, kind="interrupted", agent="desk", sdk="javascript",
        sdk_version=written["sdk_version"], schema_version=schema_version_of(written["state"]), state=written["state"],
    )  # fmt: skip
    save_to_file(tmp_path / "state.json", snapshot)
    with pytest.raises(UnsupportedError, match=f"javascript.*{written['sdk_version']}"):
        await RunStateStore(tmp_path / "state.json", agent_of("two_approvals", [])).load()


def test_the_corpus_has_each_case_of_many_releases_and_nothing_of_a_machine() -> None:
    folders = {path.parent.name for path in PYTHON}
    assert len(folders) >= 9
    for folder in folders:
        assert {path.stem for path in (CORPUS / folder).glob("*.json")} == set(CASES)
    for path in CORPUS.glob("*/*.json"):
        text = path.read_text(encoding="utf-8")
        assert len(text) < 20_000
        assert not re.search(r"/(home|root|tmp|work|usr)/|sk-|https?://(?!json-schema)|api_key\": \"", text), path
