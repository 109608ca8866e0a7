"""Durable names and the rules for ids.

Names written here are stored in databases and compared on recovery. They are written out, never derived, and
never renamed; a change needs a new `DURABLE_VERSION`.
"""

from __future__ import annotations

import uuid

from timestep.errors import InvalidInputError, InvalidRunIdError

DURABLE_VERSION = 1
"""Version of the step sequence. It is part of the application version: a change keeps old runs on old code."""

SCHEMA = "timestep"
DBOS_SCHEMA = "dbos"

WORKFLOW_AGENT_RUN = "agent_run"
WORKFLOW_COPY_SEGMENT = "copy_segment"
WORKFLOW_SCHEDULED_RUN = "scheduled_agent_run"
DEFAULT_QUEUE = "timestep_agent_queue"
SEGMENT_QUEUE = "timestep_segments"
STREAM_KEY = "events"
STEP_CLOSE_STREAM = "DBOS.closeStream"
"""The name under which DBOS records that a stream is closed."""

SEGMENT_MARK = "~"
MAX_ID_CHARACTERS = 200
"""Longest id of a run or a session. DBOS adds suffixes of its own to it."""
MAX_SCHEDULE_CHARACTERS = 160
"""Longest name of a schedule: a time follows in the ids of its runs."""


def new_run_id() -> str:
    """Return a fresh run id."""
    return str(uuid.uuid4())


def new_session_id() -> str:
    """Return a fresh session id."""
    return str(uuid.uuid4())


def check_run_id(run_id: str) -> str:
    """Return `run_id` unchanged, or refuse it.

    A run id is 1 to 200 printable characters without spaces at its ends and without `~`, which marks segments.

    Raises:
        InvalidRunIdError: the id breaks one of these rules.
    """
    if not isinstance(run_id, str):  # pyright: ignore[reportUnnecessaryIsInstance] - callers may be untyped
        raise InvalidRunIdError(f"A run id is text, not {type(run_id).__name__}: {run_id!r}.")
    problem = _problem_of(run_id)
    if SEGMENT_MARK in run_id:
        problem = f"contains {SEGMENT_MARK!r}, which marks the segments of a run"
    if problem:
        raise InvalidRunIdError(
            f"The run id {_shown(run_id)} {problem}.",
            hint=f"Use 1 to {MAX_ID_CHARACTERS} printable characters without {SEGMENT_MARK!r}.",
        )
    return run_id


def check_session_id(session_id: str) -> str:
    """Return `session_id` unchanged, or refuse it; the rules of run ids apply, except that `~` is allowed.

    Raises:
        InvalidInputError: the id breaks one of these rules.
    """
    problem = _problem_of(session_id)
    if problem:
        raise InvalidInputError(
            f"The session id {_shown(session_id)} {problem}.",
            hint=f"Use 1 to {MAX_ID_CHARACTERS} printable characters.",
        )
    return session_id


def check_queue_name(name: str) -> str:
    """Return the name of a queue for runs unchanged, or refuse it; the rules of session ids apply.

    Raises:
        InvalidInputError: the name breaks one of these rules, or is that of a queue of the engine or of DBOS.
    """
    if not isinstance(name, str):  # pyright: ignore[reportUnnecessaryIsInstance] - callers may be untyped
        raise InvalidInputError(f"The name of a queue is text, not {type(name).__name__}: {name!r}.")
    problem = _problem_of(name)
    if not problem and (name == SEGMENT_QUEUE or name.startswith("_dbos_")):
        problem = "is that of a queue that the engine itself uses"
    if problem:
        raise InvalidInputError(
            f"The queue name {_shown(name)} {problem}.", hint=f"Use 1 to {MAX_ID_CHARACTERS} printable characters."
        )
    return name


def check_schedule_name(name: str) -> str:
    """Return the name of a schedule unchanged, or refuse it: the ids of its runs, `<name>:<time>`, follow the rules.

    Raises:
        InvalidInputError: the name breaks one of these rules.
    """
    problem = _problem_of(name)
    if SEGMENT_MARK in name:
        problem = f"contains {SEGMENT_MARK!r}, which marks the segments of a run"
    if len(name) > MAX_SCHEDULE_CHARACTERS:
        problem = f"has {len(name)} characters, more than {MAX_SCHEDULE_CHARACTERS}"
    if problem:
        raise InvalidInputError(
            f"The schedule name {_shown(name)} {problem}.",
            hint=f"Use 1 to {MAX_SCHEDULE_CHARACTERS} printable characters without {SEGMENT_MARK!r}.",
        )
    return name


def segment_id(run_id: str, segment: int) -> str:
    """Return the DBOS workflow id of segment `segment` of a run; the first has the run's own id."""
    return run_id if segment == 1 else f"{run_id}{SEGMENT_MARK}{segment}"


def copy_id(workflow_id: str) -> str:
    """Return the id of the workflow that starts a segment from a copy of a journal."""
    return f"{workflow_id}{SEGMENT_MARK}copy"


def run_of_segment(workflow_id: str) -> tuple[str, int]:
    """Return run id and segment number of a DBOS workflow id."""
    run_id, mark, number = workflow_id.rpartition(SEGMENT_MARK)
    if mark and number.isdigit():
        return run_id, int(number)
    return workflow_id, 1


def kind_of_step(name: str) -> str:
    """Return the kind of a step by its name: `tool_call` of `1:call_2/tool_call:1:lookup:call_7`."""
    return name.rpartition("/")[2].partition(":")[0]


def _problem_of(text: str) -> str:
    if not text:
        return "is empty"
    if len(text) > MAX_ID_CHARACTERS:
        return f"has {len(text)} characters, more than {MAX_ID_CHARACTERS}"
    if text != text.strip():
        return "begins or ends with a space"
    if not text.isprintable():
        return "has characters that cannot be printed"
    return ""


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")
