"""Databases that older releases have made are migrated, and today's code finishes every run in them, for ever.

`tests/fixtures/database/<release>/` was made by `generate.py` there, with that release. It is restored, migrated,
decided, and executed once for all tests of this module; they read what came of it.
"""

from __future__ import annotations

import asyncio
import collections
import json
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from dbos import DBOS

import timestep
from timestep import (
    Client,
    RunLimits,
    RunStateStore,
    cleanup_dbos,
    ensure_dbos_launched,
    queue_agent_workflow,
    run_agent,
    run_agent_workflow,
    wait_run,
)
from timestep.embedded_postgres import EmbeddedPostgres
from timestep.errors import RunStateNotFoundError, SnapshotAlreadyResumed
from timestep.records import Approval

MENDED_REASONS = {
    "limit_reached_error": "limit_reached",
    "outcome_unknown_error": "outcome_unknown",
    "h_t_t_p_gone": "exception",
    "out_of_order": "exception",
}
"""Reasons that 0.1.0 made of the classes of errors, and what the migration makes of them."""

FOLDER = Path(__file__).resolve().parents[1] / "fixtures" / "database"
sys.path.insert(0, str(FOLDER))

import stored_agents as stored  # noqa: E402 - it is no package
from stored_facts import read_facts  # noqa: E402
from stored_mind import HTTPGone, OutOfOrder, Verdict  # noqa: E402

DUMPS = sorted(path.parent for path in FOLDER.glob("*/database.sql"))
LIMIT_SECONDS = 120
"""What only ends a test that hangs."""

EXPIRED = "Paid: Nobody decided about this call of pay_in_time in time."
COUNTED = "Counted: slept; slept; slept"
SEEN, SEEN_SLOWLY = "Seen: saw box", "Seen: saw box; saw slow lake"
SEEN_TWICE = "Seen: saw box; saw cup; saw hat"
PAID, PAID_TWICE = "Paid: saw box; paid 5", "Paid: paid 5; paid 6"

ENDS: dict[str, Any] = {
    "ann-1": SEEN_SLOWLY,
    "ann-2": SEEN,
    "ann-3": SEEN_TWICE,
    "bob-1": PAID,
    "bob-2": SEEN,
    "cancelled-parent": f"Spread: {SEEN}, {PAID}, {SEEN_SLOWLY}",
    "cancelled-queued": SEEN,
    "cancelled-running": SEEN_SLOWLY,
    "cancelled-timeout": SEEN_SLOWLY,
    "cancelled-waiting": PAID,
    "decided-approval": PAID,
    "decided-limit": COUNTED,
    "decided-outcome": "Wired: saw box; wired to slow bank, receipt 8",
    "decided-question": "Answered: red",
    "decided-rejection": "Paid: saw box; Zu teuer.",
    "decided-sticky": PAID_TWICE,
    "done-cart": "Noted: noted é; noted b; paid 5; Cart b é",
    "done-checkpoint": COUNTED,
    "done-guarded": "Careful: saw box",
    "done-handoff": 'Closed: {"assistant": "closer"}; saw box',
    "done-helper": f"Helped: {SEEN_TWICE}; saw box",
    "done-judge": Verdict(verdict="refund", orders=[7]),
    "done-mcp": "Tide: Ostend: 14:20",
    "done-native": "Worked: 1 row; ls! pwd!; a.txt; computer_screenshot; made",
    "done-parent": f"Spread: {SEEN}, {SEEN_TWICE}",
    "done-segments": "Done: paid 5; blue",
    "done-settled": "Wired: saw box; wired to slow bank, receipt 7",
    "done-streamed": SEEN_TWICE,
    "done-talk-1": SEEN_TWICE,
    "done-talk-2": "Grüße: saw \"Ü\" '\\' \u0000 \uffff 🍣",
    "done-torn": "Torn: An error occurred while running the tool. Please try again.",
    "failed-cause": "Broken bell, mended: saw box",
    "failed-expired": "Paid: paid 5",
    "failed-input": "InputGuardrailTripwireTriggered",
    "failed-limit": "LimitReachedError",
    "failed-model": "Broken, mended: saw box",
    "failed-outcome": "Wired: saw box; wired to slow bank",
    "failed-output": "OutputGuardrailTripwireTriggered",
    "failed-reject": COUNTED,
    "failed-send": "OutcomeUnknownError",
    "failed-tool": "Pressed: saw box; pressed red",
    "failed-turns": COUNTED,
    "history": SEEN_SLOWLY,
    "killed-ask": "Wired: saw box; wired to slow bank",
    "killed-cart": "Noted: noted é; noted slow b; Cart slow b é",
    "killed-checkpoint": SEEN_SLOWLY,
    "killed-foreign": SEEN_SLOWLY,
    "killed-handoff": 'Closed: {"assistant": "closer"}; saw box; saw slow lake',
    "killed-helper": f"Helped: {SEEN_SLOWLY}; {SEEN_TWICE}",
    "killed-mcp": "Tide: Ostend: 14:20; saw slow lake",
    "killed-model": "Slow thought: saw box",
    "killed-parent": f"Spread: {SEEN}, {PAID}, {SEEN_SLOWLY}",
    "killed-queued": SEEN_SLOWLY,
    "killed-segment": "Paid: paid 5; saw box; saw slow lake",
    "killed-streamed": "Slow thought: saw box",
    "killed-tool": SEEN_SLOWLY,
    "late": SEEN,
    "mail-1": SEEN,
    "mail-2": SEEN,
    "mail-delayed": SEEN,
    "mail-first": SEEN,
    "mail-limited": COUNTED,
    "mail-options": "Noted: noted é; noted b; paid 5; Order b é",
    "mail-turns": "MaxTurnsExceeded",
    "many-1": SEEN,
    "many-2": SEEN,
    "mismatch": PAID,
    "own-order-child": SEEN,
    "parts-a": SEEN,
    "parts-b": SEEN,
    "paused": SEEN,
    "saved-durable": PAID,
    "wait-approval": PAID,
    "wait-cart": "Noted: noted é; noted b; paid 5; Cart b é",
    "wait-expiring": EXPIRED,
    "wait-handoff": 'Closed: {"assistant": "closer"}; paid 5',
    "wait-helper": f"Helped: {PAID}",
    "wait-max_cost_micro_usd": COUNTED,
    "wait-max_seconds": COUNTED,
    "wait-max_tokens": COUNTED,
    "wait-max_tool_calls": COUNTED,
    "wait-max_turns": COUNTED,
    "wait-mcp": "Tide: Ostend: 14:20; paid 5",
    "wait-order": "Noted: noted é; noted b; paid 5; Order b é",
    "wait-outcome": "Wired: saw box; wired to slow bank, receipt 9",
    "wait-question": "Answered: blue",
    "wait-state": PAID,
    "wait-streamed": PAID_TWICE,
    "wait-two": PAID_TWICE,
}
"""What each run ends with in the end: its output, or the class of its error when no resume helps."""

OF_CHILDREN = {"Look.": SEEN, "Look twice.": SEEN_TWICE, "Look slowly.": SEEN_SLOWLY, "Pay.": PAID}
"""Outputs of the runs of tools and schedules by their input: their ids are made."""

NOT_RESUMED = ("failed-input", "failed-output", "failed-limit", "failed-send")
"""Failed runs that would fail in the same way again."""


@dataclass(kw_only=True)
class Finished:
    """A dump and what came of it: the facts when it was made, when it was migrated, and at the end."""

    was: dict[str, Any]
    before: list[list[str]]
    restored: dict[str, Any] = field(default_factory=dict)
    now: dict[str, Any] = field(default_factory=dict)
    after: list[list[str]] = field(default_factory=list)
    first_errors: dict[str, Any] = field(default_factory=dict)
    results: dict[str, Any] = field(default_factory=dict)
    states: dict[str, Any] = field(default_factory=dict)
    own: str = ""
    triggered: str = ""
    duplicate_of: str = ""
    schema: set[Any] = field(default_factory=set)
    schema_of_today: set[Any] = field(default_factory=set)


MOVED_DEADLINES = (
    b"update timestep.runs set deadline_at = now() + interval '1 hour' "
    b"where status = 'running' and deadline_at is not null",
    b"update dbos.workflow_status set workflow_deadline_epoch_ms = ((extract(epoch from now()) + 3600) * 1000)::bigint "
    b"where status in ('PENDING', 'ENQUEUED') and workflow_deadline_epoch_ms is not null",
)


@pytest.fixture(scope="module", params=DUMPS, ids=lambda path: path.name)
def finished(
    request: pytest.FixtureRequest,
    server: EmbeddedPostgres,
    settings_of_module: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> Finished:
    dump, folder = request.param, tmp_path_factory.mktemp("older")
    name = f"older-{dump.name}"
    server.ensure_database(name)
    with server.connect(name, autocommit=True) as connection:
        connection.execute((dump / "database.sql").read_bytes())
        for move in MOVED_DEADLINES:  # a dump grows old, and its runs have the time that they had
            connection.execute(move)
    timestep.cleanup_dbos()
    for variable, value in {
        "PG_CONNECTION_URI": server.url(name),
        "TIMESTEP_APP_NAME": stored.APPLICATION,
        "TIMESTEP_APPLICATION_VERSION": "1",
        "TIMESTEP_TAKEOVER_SECONDS": "1",
        "STORED_LOG": str(folder / "side_log.txt"),
    }.items():
        settings_of_module.setenv(variable, value)
    settings_of_module.delenv("STORED_MAKING", raising=False)
    stored.notebooks.clear()
    migrate = [sys.executable, "-m", "timestep", "db", "migrate"]
    subprocess.run(migrate, check=True, cwd=folder, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
    finished = Finished(was=json.loads((dump / "facts.json").read_text("utf-8")), before=lines_of(dump))
    finished.schema, finished.schema_of_today = schema_of(server, name), schema_of(server, "template_migrated")
    shutil.copy(dump / "state.json", folder)
    try:
        asyncio.run(finish(finished, folder))
    finally:
        cleanup_dbos()
    finished.after = lines_of(folder)
    return finished


def lines_of(folder: Path) -> list[list[str]]:
    """Return the lines of a side log: run, body and event."""
    return [line.split("\t") for line in (folder / "side_log.txt").read_text("utf-8").splitlines()]


def schema_of(server: EmbeddedPostgres, name: str) -> set[Any]:
    """Return the columns and indexes of a database."""
    query = """
        select table_schema, table_name, column_name, data_type, is_nullable, column_default
        from information_schema.columns where table_schema in ('dbos', 'timestep')
        union all
        select schemaname, tablename, indexname, indexdef, null, null
        from pg_indexes where schemaname in ('dbos', 'timestep')
    """
    with server.connect(name) as connection:
        return set(connection.execute(query).fetchall())


async def finish(finished: Finished, folder: Path) -> None:
    """Do with a migrated database what people and executors do."""
    async with Client() as client:
        finished.restored = await read_facts(client)
        stored.register()
        stored.register_own_workflow()
        await look_at_errors(finished)
        await resume(client, finished.restored["runs"])
        await ensure_dbos_launched()
        options: Any = {"queue_name": "paused", "deduplication_id": "once", "on_duplicate": "return"}
        finished.duplicate_of = queue_agent_workflow("clerk", "Count.", **options).run_id
        await client.resume_queue("paused")
        finished.triggered = await client.trigger_schedule("tick")
        finished.states = await states(folder)
        await decide_all(client)
        handle: Any = await DBOS.retrieve_workflow_async("own-order")
        finished.own = await handle.get_result()
        finished.now = await read_facts(client)
        for run_id in finished.now["runs"]:
            try:
                finished.results[run_id] = (await wait_run(run_id)).output
            except Exception as error:
                finished.results[run_id] = type(error).__name__


async def look_at_errors(finished: Finished) -> None:
    """Read the errors of failed runs, before they are resumed."""
    for run_id, run in finished.restored["runs"].items():
        if run["status"] == "failed":
            try:
                await wait_run(run_id)
            except Exception as error:
                finished.first_errors[run_id] = error


async def resume(client: Client, runs: dict[str, Any]) -> None:
    """Resume what was cancelled, parked or has failed; what a cancelled run has started goes on with it."""
    parked = ("history_changed", "snapshot_mismatch_error")
    for run_id, run in runs.items():
        if run["reason"] == "parent_cancelled" or run_id in NOT_RESUMED:
            continue
        if run["status"] in ("failed", "cancelled") or run["reason"] in parked:
            await client.resume_run(run_id, max_turns=10 if run_id == "failed-turns" else None)


async def decide_all(client: Client) -> None:
    """Decide what is asked until every run has ended."""
    limit = time.monotonic() + LIMIT_SECONDS
    while left := await client.list_runs(statuses=["queued", "running", "interrupted"]):
        assert time.monotonic() < limit, left
        for asked in await client.list_approvals():
            await decide(client, asked)
        await asyncio.sleep(0.1)


async def decide(client: Client, asked: Approval) -> None:
    match asked.kind:
        case "approval" if asked.expires_at is None:
            await client.approve(asked.run_id, by="alice", approval_id=asked.id)
        case "approval":
            return  # its time is over
        case "question":
            await client.answer(asked.run_id, "blue", by="alice", approval_id=asked.id)
        case "outcome_unknown" if asked.run_id == "wait-outcome":
            result = "wired to slow bank, receipt 9"
            await client.settle(asked.run_id, by="alice", outcome="happened", result=result, approval_id=asked.id)
        case "outcome_unknown":
            await client.settle(asked.run_id, by="alice", outcome="did_not_happen", approval_id=asked.id)
        case "limit":
            limits = RunLimits(**{asked.details["limit"]: 1_000_000})
            await client.raise_limits(asked.run_id, limits, by="alice", approval_id=asked.id)


async def states(folder: Path) -> dict[str, Any]:
    """Go on from each of the saved states; return the outputs, or the errors."""
    clerk, found = stored.clerk, dict[str, Any]()
    for store in (
        RunStateStore(clerk, "saved-plain"),
        RunStateStore(clerk, "saved-cleared"),
        RunStateStore(clerk, "saved-resumed"),
        RunStateStore(stored.cart_clerk, "saved-cart"),
        RunStateStore(stored.judge, "saved-final"),
        RunStateStore(clerk, "saved-durable"),
        RunStateStore(folder / "state.json", clerk),
    ):
        try:
            state = await store.load()
            for item in state.get_interruptions():
                state.approve(item)
            if store.session_id == "saved-durable":
                result: Any = await run_agent_workflow(store.agent, state)
                assert result.run_id == "saved-durable"
            else:
                result = await run_agent(store.agent, state)
            outcome = result.output
        except Exception as error:
            outcome = type(error)
        found["file" if store.path else store.session_id] = outcome
    return found


def same(was: Any, now: Any) -> Any:
    """Return `now` with the keys of `was` alone: a newer release may tell more."""
    if isinstance(was, dict) and isinstance(now, dict):
        return {key: same(value, now.get(key)) for key, value in was.items()}
    if isinstance(was, list) and isinstance(now, list) and len(was) == len(now):
        return [same(one, other) for one, other in zip(was, now, strict=True)]
    return now


def is_made(run_id: str) -> bool:
    """Whether a run was started by a tool or a schedule."""
    return ":" in run_id


def events(lines: list[list[str]], event: str) -> collections.Counter[tuple[str, str]]:
    """Return how often each body of a durable run has come to an event."""
    return collections.Counter((run, what) for run, what, which in lines if which == event and run != "plain")


@pytest.mark.parametrize("group", ["runs", "approvals", "steps", "usage", "queues", "schedules", "sessions", "events"])
def test_today_s_client_reads_what_that_of_the_release_read(finished: Finished, group: str) -> None:
    was = finished.was[group]
    assert was
    if group == "runs":
        was = {
            run_id: run | {"reason": MENDED_REASONS.get(run["reason"], run["reason"])} for run_id, run in was.items()
        }
    assert same(was, finished.restored[group]) == was
    assert finished.restored[group].keys() == was.keys()


def test_the_migrated_schema_is_that_of_a_new_database(finished: Finished) -> None:
    assert finished.schema == finished.schema_of_today


def test_every_run_ends_with_the_right_output(finished: Finished) -> None:
    named = [run_id for run_id in finished.was["runs"] if not is_made(run_id)]
    assert {run_id: finished.results[run_id] for run_id in named} == {run_id: ENDS[run_id] for run_id in named}
    made = {run_id: run for run_id, run in finished.now["runs"].items() if is_made(run_id)}
    wanted = {run_id: OF_CHILDREN[run["input_items"]] for run_id, run in made.items()}
    assert {run_id: finished.results[run_id] for run_id in made} == wanted
    assert finished.own == f"{SEEN} / {SEEN_SLOWLY}"
    started = {run_id.partition(":")[0] for run_id in finished.now["runs"].keys() - finished.was["runs"].keys()}
    assert started == {"minute", "tick"}, "a tool that was repeated has found the runs that it had started"


def test_runs_keep_the_options_that_they_were_started_with(finished: Finished) -> None:
    runs = finished.now["runs"]
    asked = {each["run_id"] for each in finished.now["approvals"].values() if each["kind"] == "limit"}
    assert "mail-limited" in asked
    assert finished.results["mail-turns"] == "MaxTurnsExceeded"
    assert runs["killed-checkpoint"]["segment"] == 3, "each segment has one turn"
    assert runs["mail-first"]["started_at"] < runs["mail-1"]["started_at"] < runs["mail-2"]["started_at"]
    assert finished.duplicate_of == "paused"


def test_what_had_succeeded_is_as_it_was(finished: Finished) -> None:
    ended = {run_id: run for run_id, run in finished.was["runs"].items() if run["status"] == "succeeded"}
    assert len(ended) > 20
    assert same(ended, finished.now["runs"]) == ended


def test_no_finished_body_is_executed_again_and_every_other_one_once(finished: Finished) -> None:
    done, begun = events(finished.before, "end"), events(finished.after, "begin")
    assert begun
    assert set(done) & set(begun) == set()
    all_done = done + events(finished.after, "end")
    assert {body: count for body, count in all_done.items() if count > 1} == {}
    started = {*begun, *events(finished.before, "begin")}
    settled = {body for body in started - set(all_done) if body[1].startswith("wire slow bank")}
    assert {run for run, _ in settled} == {"decided-outcome", "done-settled", "wait-outcome"}
    assert {body for body in started - set(all_done) - settled if body[0] not in NOT_RESUMED} == {
        ("done-torn", "tear letter done-torn:1:Tear._1")
    }


def test_usage_is_neither_lost_nor_counted_twice(finished: Finished) -> None:
    calls = collections.Counter[str]()
    for (run, what), count in (events(finished.before, "end") + events(finished.after, "end")).items():
        calls[run] += count if what.startswith("model ") else 0
    runs = finished.now["runs"]
    assert {run_id: run["usage"]["requests"] for run_id, run in runs.items()} == {
        run_id: calls[run_id] for run_id in runs
    }
    [total] = finished.now["usage"]["model"]
    assert total["calls"] == sum(run["usage"]["requests"] for run in runs.values())
    [before] = finished.was["usage"]["model"]
    assert total["cost_micro_usd"] > before["cost_micro_usd"] > 0


def test_errors_are_rebuilt_with_their_class_fields_and_cause(finished: Finished) -> None:
    errors = finished.first_errors
    assert type(errors["failed-model"]) is OutOfOrder
    gone = errors["failed-cause"]
    assert isinstance(gone, HTTPGone)
    assert (str(gone), gone.code, type(gone.__cause__)) == ("It is gone.", 410, ConnectionResetError)
    assert "紙" in str(errors["failed-tool"])
    assert {run_id for run_id, run in finished.was["runs"].items() if run["status"] == "failed"} == errors.keys()


def said(items: list[Any]) -> list[str]:
    """Return the items of a session as short texts."""
    texts = list[str]()
    for item in items:
        kind, content = item.get("type"), item.get("content")
        if kind == "function_call":
            texts.append(f"> {item['name']}")
        elif kind == "function_call_output":
            texts.append(f"< {item['output']}")
        else:
            texts.append(content if isinstance(content, str) else content[0]["text"])
    return texts


LOOKED = ["Look.", "> look", "< saw box", SEEN]
LOOKED_SLOWLY = ["Look slowly.", "> look", "> look", "< saw box", "< saw slow lake", SEEN_SLOWLY]
LOOKED_TWICE = ["Look twice.", "> look", "> look", "< saw box", "< saw cup", "> look", "< saw hat", SEEN_TWICE]
PAY = ["Pay.", "> look", "> pay", "< saw box", "< paid 5", PAID]
PAY_TWICE = ["Pay twice.", "> pay", "> pay", "< paid 5", "< paid 6", PAID_TWICE]


def test_sessions_have_the_items_of_their_runs_each_once(finished: Finished) -> None:
    sessions = {name: said(items) for name, items in finished.now["sessions"].items()}
    assert sessions["ann"] == [*LOOKED_SLOWLY, *LOOKED, *LOOKED_TWICE]
    assert sessions["killed"] == LOOKED_SLOWLY
    assert sessions["bob"] == [PAY[0], *LOOKED, *PAY[1:]]  # while the first waited, the second ran
    assert sorted(sessions["bench"]) == sorted([*PAY, *PAY_TWICE])  # two that ran at the same time
    assert sessions["talk"][:2] == ["Hello.", "Hello!"]
    assert sessions["talk"][2:-4] == LOOKED_TWICE
    assert sessions["talk"][-1] == ENDS["done-talk-2"]
    assert sessions["decided"] == ["Pay and ask.", "> pay", "< paid 5", "> ask_user", "< blue", "Done: paid 5; blue"]
    assert sessions["killed-segment"] == [
        "Pay, then look slowly.", "> pay", "< paid 5", *LOOKED_SLOWLY[1:-1], ENDS["killed-segment"]
    ]  # fmt: skip
    assert sessions["failing"] == [
        "Press.", "> look", "< saw box", "> press", "< pressed red", ENDS["failed-tool"]
    ]  # fmt: skip
    for name in ("saved-durable", "wait-state", "decided-approval"):
        assert sessions[name] == PAY
    ticks = [run_id for run_id in finished.now["runs"] if run_id.startswith("tick:")]
    assert sessions["ticks"] == LOOKED * len(ticks)
    assert said(stored.notebooks["notebook"].items) == ["Look.", "Later.", *LOOKED_SLOWLY]


def test_saved_states_load_and_go_on(finished: Finished) -> None:
    assert finished.states == {
        "saved-plain": PAID_TWICE,
        "saved-cleared": RunStateNotFoundError,
        "saved-resumed": SnapshotAlreadyResumed,
        "saved-cart": "Noted: noted é; noted b; paid 5; Cart b é",
        "saved-final": Verdict(verdict="refund", orders=[7]),
        "saved-durable": PAID,
        "file": PAID_TWICE,
    }


def test_schedules_go_on(finished: Finished) -> None:
    def runs_of(schedule: str) -> set[str]:
        return {each for each in finished.now["runs"] if each.startswith(f"{schedule}:")} - finished.was["runs"].keys()

    assert runs_of("tick") == {finished.triggered}  # it is paused
    assert 1 <= len(runs_of("minute")) < 10, (
        "the newest of the many ticks that were missed, and those of the test's time"
    )
    assert not runs_of("year")


def test_streams_go_on_with_rising_offsets_to_their_end(finished: Finished) -> None:
    for run_id, stream in finished.now["events"].items():
        offsets = [event["offset"] for event in stream if "offset" in event]
        assert offsets == sorted(offsets)
        assert stream[-1]["type"] == "run_finished"
        newest = max((event["segment"], event["attempt"]) for event in stream if event["type"] == "text_delta")
        deltas = [
            each for each in stream if each["type"] == "text_delta" and (each["segment"], each["attempt"]) == newest
        ]
        assert "".join(event["text"] for event in deltas) == ENDS[run_id]
    assert finished.now["events"].keys() >= {"done-streamed", "killed-streamed", "wait-streamed"}
