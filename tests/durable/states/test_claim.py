"""Stored states between processes: one of two resumes it, and a program that is started again goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

PROGRAM = """
    import asyncio, os, sys
    from agents import Agent, function_tool
    from agents.testing import ModelStep, ScriptedModel, assistant_message, function_call
    from timestep import RunStateStore, SnapshotAlreadyResumed, run_agent, run_agent_workflow

    @function_tool(needs_approval=True)
    async def refund(order: str) -> str:
        with open("refunds", "a") as file:
            file.write(order + "\\n")
        if os.path.exists("hang"):
            print("hanging", flush=True)
            await asyncio.sleep(600)
        return "refunded"

    class Says(ScriptedModel):
        async def get_response(self, *args, **kwargs):
            given = kwargs["input"] if "input" in kwargs else args[1]
            has_called = any("call_id" in item for item in given if isinstance(item, dict))
            step = assistant_message("done") if has_called else function_call("refund", {"order": "7"}, call_id="c1")
            self.enqueue(ModelStep(output=[step]))
            return await super().get_response(*args, **kwargs)

    async def main():
        agent = Agent(name="desk", model=Says([]), tools=[refund])
        store = RunStateStore("state.json", agent) if sys.argv[1] == "file" else RunStateStore(agent, sys.argv[1])
        try:
            run_state = await store.load()
            print("loaded", flush=True)
        except FileNotFoundError:
            run_state = [{"role": "user", "content": "Refund"}]
        if "wait" in sys.argv:
            print("ready", flush=True)
            sys.stdin.readline()
        if not isinstance(run_state, list):
            for item in run_state.get_interruptions():
                run_state.approve(item)
        run = run_agent_workflow if "durable" in sys.argv and not isinstance(run_state, list) else run_agent
        try:
            result = await run(agent, run_state)
        except SnapshotAlreadyResumed:
            print("refused")
            return
        if "unsaved" not in sys.argv:
            await store.save(result.to_state())
        print("output", result.output)
        await store.close()

    asyncio.run(main())
"""


@pytest.fixture
def program(tmp_path: Path, engine: Any) -> Any:
    (tmp_path / "app.py").write_text(textwrap.dedent(PROGRAM))

    def start(*words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "app.py", *words], cwd=tmp_path, env=os.environ, text=True, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    start.folder = tmp_path  # type: ignore[attr-defined]
    return start


def ends(process: subprocess.Popen[str]) -> list[str]:
    out, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return out.split("\n")[:-1]


@pytest.mark.slow
@pytest.mark.parametrize("where", ["a-session", pytest.param("file", marks=pytest.mark.long)])
def test_of_two_processes_that_resume_at_the_same_moment_one_is_refused(program: Any, where: str) -> None:
    assert ends(program(where)) == ["output None"]
    both = [program(where, "wait") for _ in range(2)]
    for process in both:
        assert process.stdout is not None
        assert [process.stdout.readline(), process.stdout.readline()] == ["loaded\n", "ready\n"]
    for process in both:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    assert sorted(line for process in both for line in ends(process)) == ["output done", "refused"]
    assert (program.folder / "refunds").read_text() == "7\n"


@pytest.mark.slow
@pytest.mark.parametrize("where", ["killed-session", pytest.param("file", marks=pytest.mark.long)])
def test_the_documented_program_goes_on_when_it_is_started_again_after_kill_9(program: Any, where: str) -> None:
    assert ends(program(where)) == ["output None"]
    (program.folder / "hang").touch()
    killed = program(where)
    assert killed.stdout is not None
    assert [killed.stdout.readline(), killed.stdout.readline()] == ["loaded\n", "hanging\n"]
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    (program.folder / "hang").unlink()

    assert ends(program(where)) == ["loaded", "output done"]
    assert ends(program(where)) == ["loaded", "output done"]  # a finished state: nothing runs
    assert (program.folder / "refunds").read_text() == "7\n7\n"  # a plain run repeats what it had not recorded


@pytest.mark.slow
def test_of_two_durable_resumes_in_two_processes_one_is_refused(program: Any) -> None:
    where = "two-durable"
    assert ends(program(where)) == ["output None"]
    both = [program(where, "durable", "wait", "unsaved") for _ in range(2)]
    for process in both:
        assert process.stdout is not None
        assert [process.stdout.readline(), process.stdout.readline()] == ["loaded\n", "ready\n"]
    for process in both:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    assert sorted(line for process in both for line in ends(process)) == ["output done", "refused"]
    assert (program.folder / "refunds").read_text() == "7\n"


@pytest.mark.slow
def test_a_program_that_is_started_again_has_the_durable_run_that_it_had_started(
    program: Any, new_database: Any, journal_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    where, application = "killed-durable", new_database()
    monkeypatch.setenv("TIMESTEP_APP_NAME", application)  # where no other executor takes the run over
    assert ends(program(where)) == ["output None"]
    (program.folder / "hang").touch()
    killed = program(where, "durable", "unsaved")
    assert killed.stdout is not None
    assert [killed.stdout.readline(), killed.stdout.readline()] == ["loaded\n", "hanging\n"]
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    (program.folder / "hang").unlink()

    assert ends(program(where, "durable")) == ["loaded", "output done"]
    runs = journal_of(application).query(
        "select r.id from timestep.runs r join timestep.run_states s on s.resumed_by = r.id where s.session_id = %s",
        where,
    )
    assert len(runs) == 1
