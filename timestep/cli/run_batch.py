"""`timestep run --batch FILE.jsonl`: queue the runs of a file, wait for them, and write what came of them to a file.

The ids of the runs come from the file, so a second start finds the runs of the first; what the result file has is not
asked for again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from timestep.cli.errors import ExitCode, show_error
from timestep.cli.output import emit, emit_json, note, shows_progress
from timestep.errors import InvalidInputError, TimestepError
from timestep.ids import check_run_id, check_session_id
from timestep.inputs import check_item
from timestep.records import QueuedRun, RunRequest
from timestep.words import FINISHED

if TYPE_CHECKING:
    from timestep.client.connector import Connector

POLL_SECONDS = 0.5
KEYS = (
    "input_items", "workflow_id", "session_id", "agent", "model", "max_turns", "context", "timeout_seconds",
    "queue_name", "one_at_a_time", "priority", "deduplication_id", "delay_seconds", "partition_key",
)  # fmt: skip
"""What an object of the file may have: parameters of `queue_agent_workflow`."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """The runs of a file, and where what came of them is written."""

    runs: Sequence[QueuedRun]
    results: Path
    done: dict[str, str]
    """Status by run id of what the result file has."""


def read_batch(path: Path, *, agent: str, prefix: str | None, results: Path | None, **shared: Any) -> Batch:
    """Return the runs of a file, all checked; nothing is stored. `shared` are values of lines that do not have them.

    Each line is a text, or an object of `KEYS`. A line without `workflow_id` gets one from the prefix, its number and
    what it says: the same line is the same run.

    Raises:
        InvalidInputError: a line of one of the two files is malformed; the message names it by its number.
    """
    from timestep.settings import current_settings

    start = prefix if prefix is not None else re.sub(r"[^\w.-]+", "-", path.stem) or "batch"
    runs: list[QueuedRun] = []
    lines: dict[str, int] = {}
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        with _naming(path, number):
            run = _run(line, {"agent": agent, **shared}, f"{start}-{number}", current_settings().name)
            first = lines.setdefault(run.request.run_id, number)
            if first != number:
                raise InvalidInputError(f"the workflow_id {run.request.run_id!r} is that of line {first} too")
        runs.append(run)
    if not runs:
        raise InvalidInputError(f"The file {path} has no line.", hint='Write a line such as {"input_items": "Hello"}.')
    where = results if results is not None else path.with_suffix(".results.jsonl")
    if where.resolve() == path.resolve():
        raise InvalidInputError(f"The results would be written over the batch {path}.", hint="Name another --results.")
    return Batch(runs=runs, results=where, done=_read_results(where))


def run_batch(
    connector: Connector, batch: Batch, *, is_detached: bool, wait_seconds: float | None, as_json: bool
) -> ExitCode:
    """Queue what is not done, and write each result when it is there; after Ctrl-C the runs go on."""
    from timestep.cli.takers import say_if_nobody_takes
    from timestep.client.queues import enqueue_runs

    left = [run for run in batch.runs if run.request.run_id not in batch.done]
    if len(left) < len(batch.runs):
        note(f"{len(batch.runs) - len(left)} of {len(batch.runs)} runs are in {batch.results}.")
    enqueue_runs(connector, left)
    for agent in sorted({run.request.agent for run in left}):
        say_if_nobody_takes(connector, agent, what="its runs wait", run_id=None, waits=not is_detached)
    if is_detached:
        emit_json({"queued": len(left), "runs": len(batch.runs)}) if as_json else emit(f"{len(left)} runs are queued.")
        return ExitCode.DONE
    ids = [run.request.run_id for run in left]
    statuses = {run.request.run_id: batch.done.get(run.request.run_id, "") for run in batch.runs}
    try:
        statuses |= _collect(connector, ids, batch.results, wait_seconds)
    except KeyboardInterrupt:
        note("The runs go on in the executors; the same command again waits for the rest.")
        return ExitCode.INTERRUPTED
    return _summary(batch, list(statuses.values()), as_json=as_json, wait_seconds=wait_seconds)


def _collect(connector: Connector, ids: Sequence[str], results: Path, wait_seconds: float | None) -> dict[str, str]:
    """Write results as they come; return the statuses of the runs that have ended or wait for a person."""
    from timestep.client.runs import list_ended

    limit = time.monotonic() + wait_seconds if wait_seconds is not None else None
    statuses: dict[str, str] = {}
    left = list(ids)
    with _progress(len(ids)) as advance, results.open("a", encoding="utf-8") as file:
        while True:
            ended = list_ended(connector, left)
            finished = [row for row in ended if row["status"] in FINISHED]
            for row in finished:
                file.write(json.dumps(row) + "\n")
            file.flush()
            advance(len(finished))
            statuses |= {row["run_id"]: row["status"] for row in ended}
            gone = {row["run_id"] for row in finished}
            left = [run_id for run_id in left if run_id not in gone]
            if len(ended) - len(finished) == len(left) or (limit is not None and time.monotonic() >= limit):
                return statuses
            time.sleep(POLL_SECONDS)


def _summary(batch: Batch, statuses: Sequence[str], *, as_json: bool, wait_seconds: float | None) -> ExitCode:
    counts = {status: statuses.count(status) for status in sorted(set(statuses) - {""})}
    open_runs = statuses.count("")
    if as_json:
        emit_json({"runs": len(batch.runs), "statuses": counts, "unfinished": open_runs, "results": batch.results})
    else:
        emit(
            f"{len(batch.runs)} runs: {', '.join(f'{count} {word}' for word, count in counts.items()) or 'none ended'}"
        )
        note(f"  results:  {batch.results}")
    if open_runs:
        show_error(f"{open_runs} runs have not ended within {wait_seconds:g} s.", "Type the same command again.")
        return ExitCode.FAILED
    if counts.get("interrupted"):
        note("  what they wait for:  timestep approvals list")
        return ExitCode.RUN_WAITS
    return ExitCode.DONE if set(counts) <= {"succeeded"} else ExitCode.RUN_FAILED


@contextlib.contextmanager
def _progress(total: int) -> Generator[Any]:
    if not shows_progress() or not total:
        yield lambda count: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

    with Progress(
        "runs", BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=Console(stderr=True), transient=True
    ) as bar:
        task = bar.add_task("runs", total=total)
        yield lambda count: bar.advance(task, count)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").split("\n")
    except (OSError, ValueError) as error:
        raise InvalidInputError(
            f"The batch {path} cannot be read: {error}", hint="Name a file of JSON lines."
        ) from error


@contextlib.contextmanager
def _naming(path: Path, number: int) -> Generator[None]:
    try:
        yield
    except TimestepError as error:
        raise InvalidInputError(
            f"Line {number} of {path}: {error}", hint="Correct the line; nothing was queued."
        ) from error


def _json_of(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"it is not JSON: {error}.") from None


def _run(line: str, shared: dict[str, Any], start: str, application: str) -> QueuedRun:
    from timestep.client.queues import queued_run

    given = _json_of(line)
    if not isinstance(given, (str, dict)):
        raise InvalidInputError(f"it is {type(given).__name__}, not a text or an object: {line[:60]}")
    own: dict[str, Any] = {"input_items": given} if isinstance(given, str) else cast("dict[str, Any]", given)
    if unknown := sorted(name for name in own if name not in KEYS):
        raise InvalidInputError(f"it has the unknown key {unknown[0]!r}; keys are {', '.join(KEYS)}.")
    values: dict[str, Any] = {name: value for name, value in shared.items() if value is not None} | own
    digest = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:8]
    _check(values)
    request = RunRequest(
        run_id=check_run_id(values.get("workflow_id") or f"{start}-{digest}"),
        agent=values["agent"],
        input_items=_input(values.get("input_items")),
        session_id=check_session_id(values["session_id"]) if values.get("session_id") is not None else None,
        context=values.get("context"),
        max_turns=values.get("max_turns"),
        model=values.get("model"),
        timeout_seconds=values.get("timeout_seconds"),
    )
    names = ("one_at_a_time", "priority", "deduplication_id", "delay_seconds", "partition_key")
    options = {name: values[name] for name in names if name in values}
    return queued_run(request, application=application, queue=values.get("queue_name"), **options)


def _check(values: dict[str, Any]) -> None:
    for name in ("agent", "workflow_id", "session_id", "model", "queue_name"):
        if values.get(name) is not None and not isinstance(values[name], str):
            raise InvalidInputError(f"{name} is text, not {values[name]!r}.")
    for name, kinds in (("max_turns", (int,)), ("timeout_seconds", (int, float))):
        value = values.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, kinds) or not 0 < value < 1e9):
            raise InvalidInputError(f"{name} is a number above 0, not {value!r}.")


def _input(given: Any) -> Any:
    if isinstance(given, str) and given.strip():
        return given
    if not isinstance(given, list) or not given:
        raise InvalidInputError(f"input_items is a text or a list of items, not {given!r}.")
    return [check_item(item, number) for number, item in enumerate(cast("list[Any]", given))]


def _read_results(path: Path) -> dict[str, str]:
    """Return status by run id; the beginning of a line that a crash has left is cut off."""
    if not path.exists():
        return {}
    whole, end, rest = path.read_bytes().rpartition(b"\n")
    if rest:
        with path.open("r+b") as file:
            file.truncate(len(whole) + len(end))
    done: dict[str, str] = {}
    for number, line in enumerate((whole + end).decode(errors="replace").splitlines(), start=1):
        with _naming(path, number):
            row = _json_of(line)
            if not isinstance(row, dict) or not {"run_id", "status"} <= row.keys():
                raise InvalidInputError("it is no result of a run; name another file with --results.")
            done[row["run_id"]] = row["status"]
    return done
