"""`timestep run`: run an agent, here or in an executor, and stream its answer."""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
import sys
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from timestep.cli.errors import ExitCode, show_error
from timestep.cli.output import context_option, emit, emit_json, note
from timestep.errors import AgentNotRegisteredError, InvalidInputError
from timestep.ids import check_run_id, check_session_id, new_run_id
from timestep.records import Run, RunRequest

if TYPE_CHECKING:
    from agents import Agent

    from timestep.client.connector import Connector

DEFAULT_AGENT = "assistant"
"""The agent that is taken when executors have several and none is named."""

BARE_AGENT = "timestep.cli.assistant:assistant"
"""The agent that is taken when a model is named, no agent is, and no executor has one."""

LONGEST_END_SECONDS = 10


@dataclass(frozen=True, kw_only=True)
class Options:
    """What was asked for."""

    text: str
    agent: str | None
    run_id: str
    session_id: str | None
    model: str | None
    wait_seconds: float | None
    queue_name: str | None
    as_json: bool
    context: Any = None


@click.command()
@click.argument("text", required=False)
@click.option("--agent", metavar="MODULE:NAME|NAME", help="Agent of a module, or the name of an executor's agent.")
@click.option("--id", "run_id", metavar="ID", help="The run's id: the same id again returns the recorded result.")
@click.option("--session", "session_id", metavar="ID", help="Conversation that the run goes on with.")
@click.option("--model", metavar="NAME", help="Model of this run, instead of that of its agents.")
@click.option("--detach", is_flag=True, help="Print the run's id and return at once.")
@click.option("--wait", "wait_seconds", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS",
              help="Wait at most so long; the run goes on.")  # fmt: skip
@click.option("--batch", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE",
              help="Run each line of a JSONL file instead of TEXT.")  # fmt: skip
@click.option("--results", type=click.Path(dir_okay=False, writable=True, path_type=Path), metavar="FILE",
              help="Where a batch writes its results; FILE.results.jsonl when absent.")  # fmt: skip
@click.option("--queue", "queue_name", metavar="NAME", help="Queue of the run; timestep_agent_queue when absent.")
@context_option
@click.option("--json", "as_json", is_flag=True, help="Print the run as JSON when it has ended.")
@click.pass_context
def command(
    context: click.Context, text: str | None, agent: str | None, run_id: str | None, session_id: str | None,
    model: str | None, detach: bool, wait_seconds: float | None, batch: Path | None, results: Path | None,
    queue_name: str | None, run_context: Any, as_json: bool,
) -> None:  # fmt: skip
    """Run an agent and stream its answer; TEXT of `-` is read from stdin.

    With --agent MODULE:NAME the run executes in this process. Else it is queued for an executor, which
    `timestep worker MODULE` starts. After Ctrl-C the run goes on from its last finished step in another process.
    With --model NAME, no --agent and no executor, a bare assistant answers in this process.

    With --batch each line of the file is a text, or an object such as {"input_items": "Hello", "session_id": "ann"},
    and is queued for the executors. The same command again goes on: what is in the result file is not run again. --id
    is then what the ids of the runs begin with, instead of the name of the file.

    \b
    Examples:
      timestep run "Where is my order?" --agent my_app.agents:support
      timestep run "Where is my order?" --id order-43
      timestep run "Where is my order?" --agent support --context '{"customer": "ada"}'
      timestep run "Tell me a story" --model ollama/gpt-oss:20b
      timestep run --batch questions.jsonl --agent support
    """
    from timestep.cli.find_agents import is_reference

    if (batch is None) == (text is None):
        raise click.UsageError("Give TEXT or --batch FILE." if text is None else "Give TEXT or --batch FILE, not both.")
    if (batch is not None or queue_name is not None or detach) and agent is not None and is_reference(agent):
        option = "--batch" if batch is not None else "--queue" if queue_name is not None else "--detach"
        raise click.UsageError(f"{option} leaves runs to an executor: give the agent's NAME, not MODULE:NAME.")
    if batch is not None and run_context is not None:
        raise click.UsageError('--context is for one run: give it in the lines of the batch, as "context".')
    if batch is not None:
        shared = {"session_id": session_id, "model": model, "queue_name": queue_name}
        context.exit(_run_batch(batch, results, agent, run_id, shared, detach, wait_seconds, as_json))
    if results is not None:
        raise click.UsageError("--results is for --batch.")
    assert text is not None
    options = Options(
        text=_text_of(text), agent=agent, session_id=None if session_id is None else check_session_id(session_id),
        run_id=new_run_id() if run_id is None else check_run_id(run_id), model=model, wait_seconds=wait_seconds,
        queue_name=queue_name, as_json=as_json, context=run_context,
    )  # fmt: skip
    if agent is not None and is_reference(agent):
        context.exit(_run_here(options, agent))
    context.exit(_run_elsewhere(options, is_detached=detach))


def _text_of(text: str) -> str:
    given = sys.stdin.read() if text == "-" else text
    if not given.strip():
        raise InvalidInputError("The input is empty.", hint='Give the agent some text: timestep run "Hello".')
    return given


def _run_here(options: Options, reference: str) -> ExitCode:
    from timestep.cli.find_agents import load_agent
    from timestep.cli.quiet import quieten
    from timestep.cli.runs.ending import show_ending
    from timestep.cli.runs.follow import AnswerPrinter
    from timestep.client.runs import check_same
    from timestep.durable.process.engine import engine
    from timestep.durable.process.registered_agents import register_on_the_way
    from timestep.runtime import cleanup_dbos, ensure_dbos_launched

    agent, _ = load_agent(reference)
    quieten()
    register_on_the_way(agent)  # before the launch: a long run goes on here in its next segments
    ensure_dbos_launched(queues=())
    printer, module = AnswerPrinter(prints_text=not options.as_json), reference.rpartition(":")[0]
    try:
        asked = replace(_request(options, agent.name), context=_stored_context(options, agent))
        check_same(engine().connector, asked)  # before anything of the known run is printed
        run = asyncio.run(_execute(options, agent, module, printer))
        return show_ending(
            engine().connector, run, as_json=options.as_json, has_answer=printer.has_answer, module=module
        )
    finally:
        cleanup_dbos()


async def _execute(options: Options, agent: Agent[Any], module: str, printer: Any) -> Run:
    """Execute the run and print it until it has ended. After Ctrl-C, or the wait, this process ends here."""
    from timestep.cli.runs.follow import follow_run
    from timestep.durable.process.engine import engine
    from timestep.durable.start import run_agent_workflow

    loop = asyncio.get_running_loop()
    interrupted: asyncio.Future[None] = loop.create_future()

    def interrupt() -> None:
        if interrupted.done():
            os._exit(ExitCode.INTERRUPTED)
        interrupted.set_result(None)

    loop.add_signal_handler(signal.SIGINT, interrupt)
    work = asyncio.ensure_future(
        run_agent_workflow(
            agent, options.text, workflow_id=options.run_id, session_id=options.session_id, model=options.model,
            stream=True, context=_typed_context(options, agent),
        )
    )  # fmt: skip
    following = asyncio.ensure_future(follow_run(engine().connector, options.run_id, printer))
    work.add_done_callback(lambda _: following.cancel() if _is_refused(work) else None)
    done, _ = await asyncio.wait(
        (following, interrupted), timeout=options.wait_seconds, return_when=asyncio.FIRST_COMPLETED
    )
    if following in done:
        await asyncio.wait((work,), timeout=LONGEST_END_SECONDS)  # the workflow returns after its last transaction
        if _is_refused(work):
            await work
        return await following
    printer.end()
    _leave(options, agent.name, module)


def _is_refused(work: asyncio.Future[Any]) -> bool:
    """Whether the run was refused at the door; what it raised later is in its row."""
    return work.done() and not work.cancelled() and isinstance(work.exception(), InvalidInputError)


def _leave(options: Options, agent: str, module: str) -> NoReturn:
    """End this process with the run unfinished, as a crash would, but with its executor's lock given up first."""
    from timestep.client.executors import list_live_executors
    from timestep.durable.process.engine import engine
    from timestep.runtime import cleanup_dbos, drain

    drain(seconds=0)
    me = engine()
    others = [
        each for each in list_live_executors(me.connector, agent=agent)
        if each.executor_id != me.executor_id and each.application_version == me.application_version
    ]  # fmt: skip
    if others:
        note(f"The run {options.run_id} goes on in the executor {others[0].executor_id} on {others[0].host}.")
    else:
        note(f"The run {options.run_id} is in Postgres; nobody executes it now.")
        note(f"  carry it on:  timestep worker {shlex.quote(module)}")
    note(f"  look at it:   timestep runs show {shlex.quote(options.run_id)}")
    code = _code_of_leaving(options)
    # In a thread, and with a limit: the workflow still sits in this one's loop, and a second Ctrl-C is not heard.
    ending = threading.Thread(target=cleanup_dbos, daemon=True)
    ending.start()
    ending.join(timeout=5)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _code_of_leaving(options: Options) -> ExitCode:
    if options.wait_seconds is None:
        return ExitCode.INTERRUPTED
    show_error(f"The run {options.run_id!r} has not ended within {options.wait_seconds:g} s.")
    return ExitCode.FAILED


def _run_batch(
    path: Path, results: Path | None, agent: str | None, prefix: str | None, shared: dict[str, Any],
    is_detached: bool, wait_seconds: float | None, as_json: bool,
) -> ExitCode:  # fmt: skip
    from timestep.cli.connect import connect
    from timestep.cli.run_batch import read_batch, run_batch

    with connect() as connector:
        name = agent if agent is not None else _only_agent(connector)
        batch = read_batch(path, agent=name, prefix=prefix, results=results, **shared)
        return run_batch(connector, batch, is_detached=is_detached, wait_seconds=wait_seconds, as_json=as_json)


def _run_elsewhere(options: Options, *, is_detached: bool) -> ExitCode:
    from timestep.cli.connect import connect
    from timestep.cli.runs.ending import show_ending
    from timestep.cli.runs.follow import AnswerPrinter, follow_run
    from timestep.cli.takers import say_if_nobody_takes
    from timestep.client.executors import list_live_executors

    with connect() as connector:
        is_bare = options.agent is None and options.model is not None and not is_detached and not options.queue_name
        is_bare = is_bare and not any(each.agents for each in list_live_executors(connector))
        agent = "" if is_bare else options.agent or _only_agent(connector)
    if is_bare:
        return _run_here(options, BARE_AGENT)
    with connect() as connector:
        _enqueue(connector, options, agent)

        def say_if_nobody() -> None:
            waits = not is_detached
            say_if_nobody_takes(connector, agent, what="the run waits", run_id=options.run_id, waits=waits)

        if is_detached:
            say_if_nobody()
            if options.as_json:
                emit_json({"run_id": options.run_id, "agent": agent, "status": "queued"})
            else:
                emit(options.run_id)
            return ExitCode.DONE
        printer = AnswerPrinter(prints_text=not options.as_json)
        try:
            say_if_nobody()
            following = follow_run(connector, options.run_id, printer)
            run = asyncio.run(_limited(following, options.wait_seconds))
        except KeyboardInterrupt:
            printer.end()
            _say_who_goes_on(connector, options, agent)
            return ExitCode.INTERRUPTED
        if run is None:
            printer.end()
            _say_who_goes_on(connector, options, agent)
            return _code_of_leaving(options)
        return show_ending(connector, run, as_json=options.as_json, has_answer=printer.has_answer)


async def _limited(following: Any, seconds: float | None) -> Run | None:
    try:
        return await asyncio.wait_for(following, seconds)
    except TimeoutError:
        return None


def _only_agent(connector: Connector) -> str:
    from timestep.client.executors import list_live_executors

    known = sorted({name for each in list_live_executors(connector) for name in each.agents})
    if not known:
        raise AgentNotRegisteredError(
            "No agent is named, and there is no live executor that has one.",
            hint="Run one here with `timestep run TEXT --agent my_app.agents:name`, or start an executor "
            "with `timestep worker my_app.agents` in another terminal.",
        )
    if len(known) == 1:
        return known[0]
    if DEFAULT_AGENT in known:
        return DEFAULT_AGENT
    raise AgentNotRegisteredError(
        f"No agent is named, and the live executors have {len(known)}: {', '.join(known)}.",
        hint=f"Name one: timestep run TEXT --agent {shlex.quote(known[0])}",
    )


def _enqueue(connector: Connector, options: Options, agent: str) -> None:
    """Queue the run; a known id is taken as it is when it has the same input.

    Raises:
        RunInputMismatchError: the id is known with another input.
    """
    from timestep.client.queues import queue_run

    queue_run(connector, _request(options, agent), queue=options.queue_name)


def _typed_context(options: Options, agent: Agent[Any]) -> Any:
    """Return the context as the type that is registered with the agent.

    Raises:
        InvalidInputError: the type refuses the JSON.
    """
    from timestep.durable.process.registered_agents import get_agent
    from timestep.durable.states.context import load_context

    kind = get_agent(agent.name).context_type
    try:
        return load_context(options.context, kind)
    except ValueError as error:
        raise InvalidInputError(f"--context is no {getattr(kind, '__qualname__', kind)}: {error}") from error


def _stored_context(options: Options, agent: Agent[Any]) -> Any:
    """Return the context as a run of this process stores it."""
    from timestep.durable.process.registered_agents import get_agent
    from timestep.durable.states.context import dump_context

    kind = get_agent(agent.name).context_type
    return dump_context(_typed_context(options, agent), context_type=kind, hint="Give other JSON to --context.")


def _request(options: Options, agent: str) -> RunRequest:
    from timestep.client.requests import new_request

    return new_request(
        agent,
        options.text,
        run_id=options.run_id,
        session_id=options.session_id,
        context=options.context,
        model=options.model,
        stream=True,
    )


def _say_who_goes_on(connector: Connector, options: Options, agent: str) -> None:
    from timestep.client.executors import list_live_executors
    from timestep.client.runs import get_run

    run, executors = get_run(connector, options.run_id), list_live_executors(connector)
    executing = [each for each in executors if run.status == "running" and each.executor_id == run.executor_id]
    able = executing or [each for each in executors if agent in each.agents]
    if able:
        verb = "goes on in" if executing else "is for"
        note(f"The run {options.run_id} {verb} the executor {able[0].executor_id} on {able[0].host}.")
    else:
        note(f"The run {options.run_id} waits in Postgres for an executor with the agent {agent!r}.")
        note("  carry it on:  timestep worker MODULE")
    note(f"  look at it:   timestep runs show {shlex.quote(options.run_id)}")
