"""Write the pages of docs/reference from the code, or with --check say whether they are up to date.

python docs/generate_reference.py [--check]
"""

from __future__ import annotations

import argparse
import inspect
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import click

from timestep import cli, errors, settings, words
from timestep.cli.errors import EXIT_CODE_MEANINGS, exit_code_of

FOLDER = Path(__file__).parent / "reference"
MARK = "<!-- Made by docs/generate_reference.py; do not edit. -->"
HELP_WIDTH = 100

MEANINGS = {
    "name": "Name of the application, and of its database on the embedded server.",
    "data_directory": "Folder of the embedded server.",
    "application_version": "The application's own part of the version that segments are bound to.",
    "executor_id": "Id of this executor; a unique one when absent.",
    "max_result_bytes": "Largest result of one step.",
    "executor_threads": "Threads for checkpoints and DBOS's own work.",
    "tool_threads": "Threads for blocking tools.",
    "pool_size": "Database connections of the process.",
    "run_migrations": "Whether a launch brings both schemas up to date.",
    "takeover_seconds": "How long the lock of an executor must have been free before its runs are taken over.",
    "log_level": "Level of the logs of DBOS.",
    "queues": "Queues with their limits, by name, as a mapping or its JSON. See "
    "[queues](../how-to/queues-and-schedules.md).",
    "model_providers": "Servers of models by prefix: `base_url`, `api_key_env`, `use_responses`, `kind`; JSON in the "
    "variable. See [models](../how-to/models.md#servers-by-configuration).",
    "rate_limits": "Requests and tokens a minute by model, prefix or host, for all executors of the database: "
    "`requests_per_minute`, `tokens_per_minute`; JSON in the variable. See "
    "[rate limits](../how-to/limits.md#rate-limits-of-models).",
    "max_turns_per_segment": "Turns after which a run goes on in a new segment, so that little is replayed; fewer in a "
    "long run.",
    "approval_expires_seconds": "How long an approval waits for a person; for ever when absent.",
    "approval_on_expiry": "What happens to an approval that nobody decided: `reject` the call, or `fail` the run.",
}


EVENTS_INTRODUCTION = """
What `stream_run(run_id)`, `timestep runs tail` and `timestep run` read of a run. An event is a JSON object.

## Events of a run with a stream

A run that is started with `stream=True` writes these from inside its steps.
"""

EVENTS_RULES = """
Each of them also has:

| field | says |
|---|---|
| `step` | name of the step that wrote it, as in the journal |
| `turn`, `path` | its turn; `path` is empty at the top and `<turn>:<call>/` inside a sub-agent |
| `segment` | number of the segment of the run |
| `attempt` | `<execution of the segment>.<retry inside the step>`, two numbers from 1 and 0 on |
| `number` | from 1 on within the step and its attempt; an event that is stored twice has the same one |
| `offset` | number of its entry in the run's stream, counted over all segments |
| `is_last` | whether it is the last event of its entry |

Events that were written together are one entry and share an `offset`. After an event with `is_last` go on reading with
its `offset` plus one; after another one with its `offset`, and drop what you had by `step`, `segment`, `attempt` and
`number`.

## The rule for attempts

A step whose process died, or whose model call failed, is tried again and writes its events again. **Of the events with
the same `step`, those of the newest `segment` and `attempt` that wrote any count; compare them as numbers. All older
ones of that step are replaced.** A recorded step writes nothing when it is replayed, so it keeps its events.

`stream_run` applies the rule: what is stored already comes without the events that were replaced. When you have had
events of an attempt that is replaced later, also before you reconnected, `restarted` comes first: drop what you had of
its `step`. With `raw=True`, or `--raw`, every stored event comes and `restarted` does not.
"""

EVENTS_OF_READER = """
They are not stored; the run's row says them. Their `offset` is that of the event before them, -1 when there is none.
"""

EVENTS_END = """
Each of `approvals` has `id`, `kind`, `agent`, `tool`, `call_id`, `arguments` and `details`.

After `run_interrupted` the reader waits and goes on with the run; a reader that reconnects meanwhile is told again.
`run_finished` is the last event.
"""


WORDS_INTRODUCTION = """
The words that are stored in the database and printed as JSON. A program that reads them must take a word that is not on
this page: a newer release may have written it.
"""

REASONS_INTRODUCTION = """
`reason` of a run says why it has its status; one that is queued, running or has succeeded has none. An error that is
not in the table has the reason `exception`, and its class is in `error.type`.
"""

KINDS_INTRODUCTION = """
What a run waits for. `decision` is the word for `timestep.decide`, which takes `rejected` for each kind too;
[approvals](../how-to/approvals.md) shows how.
"""

STEPS_INTRODUCTION = """
The kind of a step is the part of its name after the path and before the first colon. The path is empty at the top,
`<turn>:<call>/` inside an agent that is used as a tool, and `run<number>/` in a further `Runner.run` of the same place.
Steps whose names begin with `DBOS.` are those of DBOS.
"""


def cli_page() -> str:
    """Return the help of every command, and the exit codes."""
    parts = ["# Command line", "", MARK, "", "Data goes to stdout, everything else to stderr.", ""]
    for called, text in _helps(cli.command, ("timestep",)):
        parts += [f"## {' '.join(called)}", "", "```text", text, "```", ""]
    parts += ["## Exit codes", "", "| code | meaning |", "|---|---|"]
    parts += [f"| {int(code)} | {meaning} |" for code, meaning in EXIT_CODE_MEANINGS.items()]
    return "\n".join(parts) + "\n"


def settings_page() -> str:
    """Return every setting with its variable, key, default and meaning."""
    text = inspect.getdoc(settings) or ""
    parts = ["# Settings", "", MARK, "", text.split("\n", 2)[2], ""]
    parts += ["| variable | key in `dbos-config.yaml` | default | meaning |", "|---|---|---|---|"]
    parts += [
        "| `PG_CONNECTION_URI` | `system_database_url` | found, see above | Url of the database. |",
        "| `TIMESTEP_PROBE_LOCAL` | | `1` | `0`: do not look for a server on port 5432 of this machine. |",
    ]
    for setting in settings._SETTINGS:  # the table is for this page and the resolver
        key = "name" if setting.field == "name" else f"timestep.{setting.field}"
        is_folder = setting.field == "data_directory"
        default = "see [data](../../README.md#where-the-data-is)" if is_folder else setting.default
        default = None if default is dict else default
        shown = "" if default is None else default if is_folder else f"`{_plain(default)}`"
        parts.append(f"| `{setting.variable}` | `{key}` | {shown} | {MEANINGS[setting.field]} |")
    parts += ["", "`timestep doctor` prints the value of each, where it came from, and what is wrong with it.", ""]
    parts += [
        "Providers of models have variables of their own: `OPENAI_API_KEY`, `OPENAI_BASE_URL`, `OLLAMA_API_KEY`, and"
    ]
    parts += ["`OLLAMA_HOST`, the local Ollama. See [models](../how-to/models.md#ollama)."]
    return "\n".join(parts) + "\n"


def errors_page() -> str:
    """Return the tree of errors and what each says."""
    tree = (inspect.getdoc(errors) or "").split("```")[1]
    parts = ["# Errors", "", MARK, "", "```text", tree.strip(), "```", ""]
    parts += [
        "The message says what happened, `hint` what to do next, and `retryable` whether the same call may succeed"
    ]
    parts += ["later without a change.", ""]
    parts += ["| error | meaning | hint | retryable | exit code |", "|---|---|---|---|---|"]
    for name, kind in vars(errors).items():
        if isinstance(kind, type) and issubclass(kind, errors.TimestepError):
            meaning = (kind.__doc__ or "").splitlines()[0]
            retryable = "yes" if kind.retryable else ""
            parts.append(f"| `{name}` | {meaning} | {kind.hint} | {retryable} | {int(exit_code_of(kind()))} |")
    return "\n".join(parts) + "\n"


def events_page() -> str:
    """Return the types of events with their fields, by where they come from, and the rule for attempts."""
    parts = ["# Events", "", MARK, "", *EVENTS_INTRODUCTION.strip().splitlines(), "", *_events("step"), ""]
    parts += [
        *EVENTS_RULES.strip().splitlines(),
        "",
        "## Events of a run without a stream",
        "",
        *_events("journal"),
        "",
    ]
    parts += ["One for each recorded step, numbered by `offset` in the order in which they were completed.", ""]
    parts += ["## Events that the reader adds", "", *EVENTS_OF_READER.strip().splitlines(), "", *_events("reader"), ""]
    return "\n".join([*parts, *EVENTS_END.strip().splitlines()]) + "\n"


def words_page() -> str:
    """Return statuses, reasons, kinds of approval, kinds of steps and types of calls."""
    parts = ["# Words", "", MARK, "", *WORDS_INTRODUCTION.strip().splitlines(), "", "## Statuses", ""]
    parts += [
        f"A run is {_listed(words.RUN_STATUSES)}; [runs and segments](../concepts/runs-and-segments.md) says when."
    ]
    parts += [f"An approval is {_listed(words.APPROVAL_STATUSES)}.", "", "## Reasons", ""]
    parts += [*REASONS_INTRODUCTION.strip().splitlines(), "", "| reason | of a run that is | says | error |"]
    parts += ["|---|---|---|---|"]
    for reason in words.REASONS:
        classes = ", ".join(f"`{error.rpartition('.')[2]}`" for error in reason.errors)
        parts.append(f"| `{reason.word}` | {words.listed(reason.statuses)} | {reason.meaning} | {classes} |")
    parts += ["", "## Kinds of approval", "", *KINDS_INTRODUCTION.strip().splitlines(), ""]
    parts += ["| kind | reason of the run | decision | decided with | a rejection |", "|---|---|---|---|---|"]
    for kind in words.KINDS_OF_APPROVAL:
        end = f"fails the run: `{kind.failure.error}`" if kind.failure is not None else "is told to the model"
        parts.append(f"| `{kind.word}` | `{kind.reason}` | `{kind.decision}` | `{kind.verb}` | {end} |")
    parts += ["", "## Kinds of steps", "", *STEPS_INTRODUCTION.strip().splitlines(), "", "| kind | name | records |"]
    parts += ["|---|---|---|"]
    parts += [f"| `{step.word}` | `{step.pattern}` | {step.meaning} |" for step in words.STEP_KINDS]
    parts += ["", "## Types of calls", "", f"Executed here: {_listed(each.word for each in words.CALL_TYPES)}."]
    return "\n".join(parts) + "\n"


PAGES = {
    "cli.md": cli_page,
    "settings.md": settings_page,
    "errors.md": errors_page,
    "events.md": events_page,
    "words.md": words_page,
}


def main() -> int:
    """Write the pages, or check them: 1 when one is not what would be written."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 when a page is stale")
    is_check = parser.parse_args().check
    stale: list[str] = []
    for name, make in PAGES.items():
        path, page = FOLDER / name, make()
        if not is_check:
            path.write_text(page, encoding="utf-8")
        elif not path.is_file() or path.read_text(encoding="utf-8") != page:
            stale.append(name)
    if stale:
        sys.stderr.write(f"error: {', '.join(stale)} in docs/reference: not up to date\nhint: run make reference\n")
    return 1 if stale else 0


def _helps(
    command: click.Command, called: tuple[str, ...], parent: click.Context | None = None
) -> Iterator[tuple[tuple[str, ...], str]]:
    context = click.Context(
        command, info_name=called[-1], parent=parent, terminal_width=HELP_WIDTH, max_content_width=HELP_WIDTH
    )
    yield called, command.get_help(context)
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            if found is not None:
                yield from _helps(found, (*called, name), context)


def _events(source: str) -> list[str]:
    rows = [
        f"| `{each.word}` | {', '.join(f'`{field}`' for field in each.fields)} | {each.meaning} |"
        for each in words.EVENT_TYPES
        if each.source == source
    ]
    return ["| type | fields | says |", "|---|---|---|", *rows]


def _listed(shown: Iterable[str]) -> str:
    return words.listed(f"`{word}`" for word in shown)


def _plain(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


if __name__ == "__main__":
    sys.exit(main())
