"""`timestep worker`: it takes queued runs, drains, and hands over; and what `timestep run` says with one alive."""

from __future__ import annotations

import json
import os
import re
import signal
import time

import pytest
from command_line import LIMIT_SECONDS, Shop, worker


def until(shop: Shop, line: str, *, count: int = 1) -> None:
    deadline = time.monotonic() + LIMIT_SECONDS
    while shop.bodies().count(line) < count:
        assert time.monotonic() < deadline, f"{line} did not come {count} times"
        time.sleep(0.02)


def status(shop: Shop, run_id: str) -> str:
    return json.loads(shop.call("runs", "show", run_id, "--json").stdout)["run"]["status"]


def test_it_tells_when_it_is_ready_takes_runs_and_ends_with_0_on_sigterm(shop: Shop) -> None:
    waiting = shop.call("run", "order 3", "--agent", "support", "--detach").stdout.strip()
    with worker(shop, "shop") as process:
        assert re.fullmatch(
            rf"ready  executor \S+  version {shop.database}:\d+:1  agents broken, clerk, closer, desk, support  "
            r"queues timestep_agent_queue, timestep_segments\n",
            process.ready_line,  # type: ignore[attr-defined]
        )
        result = shop.call("runs", "result", waiting, "--wait", str(LIMIT_SECONDS))
        assert (result.returncode, result.stdout) == (0, "Your order 3 is on its way.\n"), result.stderr
        run = shop.call("run", "order 4", "--agent", "support")
        assert (run.returncode, run.stdout) == (0, "Your order 4 is on its way.\n"), run.stderr
        assert run.stderr.count("turn ") == 2
        unnamed = shop.call("run", "order 5")
        assert unnamed.returncode == 2
        assert "the live executors have 5: broken, clerk, closer, desk, support." in unnamed.stderr
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=LIMIT_SECONDS)
    assert (process.returncode, out) == (0, "")
    assert err == "Stopping: the steps that run may finish, no new one begins.\n"


def test_the_only_agent_of_an_executor_needs_no_name(shop: Shop) -> None:
    (shop.folder / "one.py").write_text(
        "from timestep import register_agents\nimport shop\nregister_agents(shop.support)\n"
    )
    with worker(shop, "one.py") as process:
        assert "  agents support  " in process.ready_line  # type: ignore[attr-defined]
        assert shop.call("run", "order 5").stdout == "Your order 5 is on its way.\n"


HOSTILE = """
import asyncio, sys
from agents import Agent, function_tool
from shop import Scripted

RAISED = [SystemExit(2), KeyboardInterrupt(), GeneratorExit(), StopIteration(), BaseException("base"),
          asyncio.CancelledError("by nobody"), BaseExceptionGroup("two", [SystemExit(1)])]


def raising(error, number):
    def body() -> str:
        raise error

    async def in_loop() -> str:
        raise error

    options = dict(failure_error_function=lambda context, error: str(error))
    return [function_tool(body, name_override=f"sync_{number}", **options),
            function_tool(in_loop, name_override=f"async_{number}", **options),
            function_tool(in_loop, name_override=f"limited_{number}", timeout=30, **options)]


tools = [tool for number, error in enumerate(RAISED) for tool in raising(error, number)]


def script(done, said):
    return "all over" if done else [(tool.name, tool.name, {}) for tool in tools]


host = Agent(name="host", tools=tools, model=Scripted("tiny", script))
"""


def test_tools_that_raise_no_exception_are_failing_tools_and_the_next_run_goes_on(shop: Shop) -> None:
    (shop.folder / "hostile.py").write_text(HOSTILE)
    with worker(shop, "hostile.py", "shop") as process:
        for run_id in ("hostile", "hostile-again"):
            shop.call("run", "Go", "--agent", "host", "--id", run_id, "--detach")
            result = shop.call("runs", "result", run_id, "--wait", str(LIMIT_SECONDS))
            assert (result.returncode, result.stdout) == (0, "all over\n"), result.stderr
        assert shop.call("run", "order 5", "--agent", "support").stdout == "Your order 5 is on its way.\n"
        assert process.poll() is None
    with shop.server.connect(shop.database) as connection:
        calls = connection.execute("select result from timestep.tool_calls where run_id = 'hostile'").fetchall()
    assert len(calls) == 21
    assert {result for (result,) in calls} == {
        "SystemExit: 2", "KeyboardInterrupt", "GeneratorExit", "StopIteration", "BaseException: base",
        "CancelledError: by nobody", "BaseExceptionGroup: two (1 sub-exception)",
        "coroutine raised StopIteration",
    }  # fmt: skip


ENDING = """
import asyncio, sys
from pathlib import Path
from agents import Agent, function_tool
from shop import Scripted, leave


async def end() -> None:
    sys.exit(1)


@function_tool
async def end_the_loop() -> str:
    leave("tool end_the_loop")
    if not Path("release").exists():
        await asyncio.ensure_future(end())
    return "survived"


def script(done, said):
    return "all over" if done else [("c", "end_the_loop", {})]


ender = Agent(name="ender", tools=[end_the_loop], model=Scripted("tiny", script))
"""


def test_a_worker_whose_event_loop_is_ended_gives_its_runs_up_and_ends_with_an_error(shop: Shop) -> None:
    (shop.folder / "ending.py").write_text(ENDING)
    shop.call("run", "Go", "--agent", "ender", "--id", "ended", "--detach")
    with worker(shop, "ending.py") as process:
        _, err = process.communicate(timeout=LIMIT_SECONDS)
    assert process.returncode == 1
    assert re.search(r"error: The event loop of the executor '\S+' has ended: code that it ran ended it\.", err)
    assert "hint: " in err
    assert "ended" in shop.call("runs", "list", "--stranded").stdout
    assert re.search(r"warn  stranded runs +ended: ", shop.call("doctor").stdout)
    shop.release()
    with worker(shop, "ending.py"):
        result = shop.call("runs", "result", "ended", "--wait", str(LIMIT_SECONDS))
    assert (result.returncode, result.stdout) == (0, "all over\n"), result.stderr


def test_ctrl_c_leaves_a_followed_run_to_its_executor_and_says_so(shop: Shop) -> None:
    with worker(shop, "shop"):
        with shop.start("run", "order 99", "--agent", "support", "--id", "followed") as follower:
            until(shop, "tool look_up 99")
            assert follower.stderr is not None
            assert follower.stderr.readline().startswith("turn 1  ")
            follower.send_signal(signal.SIGINT)
            err = follower.stderr.read()
        assert follower.returncode == 130
        assert re.fullmatch(
            r"The run followed goes on in the executor \S+ on \S+\n  look at it:   timestep runs show followed\n", err
        )
        shop.release()
        result = shop.call("runs", "result", "followed", "--wait", str(LIMIT_SECONDS))
        assert result.stdout == "Your order 99 is on its way.\n"


def test_a_killed_worker_is_taken_over_and_its_follower_sees_the_end(shop: Shop) -> None:
    with (
        worker(shop, "shop") as first,
        shop.start("run", "order 99", "--agent", "support", "--id", "moved") as follower,
    ):
        until(shop, "tool look_up 99")
        first.kill()
        first.wait()
        shop.release()
        with worker(shop, "shop"):
            out, err = follower.communicate(timeout=LIMIT_SECONDS)
    assert (follower.returncode, out) == (0, "Your order 99 is on its way.\n"), err
    assert shop.bodies() == ["model tiny-1 0", "tool look_up 99", "tool look_up 99", "model tiny-1 1"]


def test_sigterm_lets_a_step_finish_and_hands_the_run_over(shop: Shop) -> None:
    shop.call("run", "order 99", "--agent", "support", "--id", "drained", "--detach")
    with worker(shop, "shop") as process:
        until(shop, "tool look_up 99")
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        assert process.stderr.readline().startswith("Stopping")
        shop.release()
        process.communicate(timeout=LIMIT_SECONDS)
    assert process.returncode == 0
    assert status(shop, "drained") == "running"
    with worker(shop, "shop"):
        assert shop.call("runs", "result", "drained", "--wait", str(LIMIT_SECONDS)).returncode == 0
    assert shop.bodies() == ["model tiny-1 0", "tool look_up 99", "model tiny-1 1"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_second_signal_ends_it_at_once(shop: Shop, number: signal.Signals, code: int) -> None:
    shop.call("run", "order 99", "--agent", "support", "--id", f"hasty-{code}", "--detach")
    with worker(shop, "shop") as process:
        until(shop, "tool look_up 99")
        process.send_signal(number)
        assert process.stderr is not None
        assert process.stderr.readline().startswith("Stopping")
        process.send_signal(number)
        process.communicate(timeout=LIMIT_SECONDS)
    assert process.returncode == code
    shop.call("runs", "cancel", f"hasty-{code}")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "Missing argument 'MODULE...'."),
        (["nonsense"], "There is no module 'nonsense' in"),
        (["empty.py"], "The module 'empty.py' ("),
        (["agents"], "The module 'agents' ("),
        (["shop", "twice.py"], "Another agent is registered as 'support'"),
    ],
)
def test_wrong_modules_end_with_2(shop: Shop, words: list[str], message: str) -> None:
    (shop.folder / "empty.py").write_text("")
    (shop.folder / "twice.py").write_text(
        "from agents import Agent\nother = Agent(name='support', instructions='Else.')\n"
    )
    run = shop.call("worker", *words)
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr.startswith(f"error: {message}")


def test_many_processes_are_started_ended_and_started_again_when_they_die(shop: Shop) -> None:
    (shop.folder / "one.py").write_text(
        "from timestep import register_agents\nimport shop\nregister_agents(shop.support)\n"
    )
    with worker(shop, "one.py", "--processes", "2") as parent:
        assert parent.stdout is not None
        ready = [parent.ready_line, parent.stdout.readline()]  # type: ignore[attr-defined]
        listed = json.loads(shop.call("executors", "list", "--json").stdout)
        alive = {each["executor_id"]: each["pid"] for each in listed if each["is_alive"]}
        assert {line.split()[2] for line in ready} == set(alive)
        os.kill(alive[ready[0].split()[2]], signal.SIGKILL)
        again = parent.stdout.readline()
        assert again.startswith("ready  ")
        assert again.split()[2] not in alive
        assert shop.call("run", "order 5").stdout == "Your order 5 is on its way.\n"
        parent.send_signal(signal.SIGTERM)
        _, err = parent.communicate(timeout=LIMIT_SECONDS)
    assert parent.returncode == 0
    assert err.count("Stopping: ") == 2
    assert "ended with signal 9; the next one starts in" in err
    assert not [each for each in json.loads(shop.call("executors", "list", "--json").stdout) if each["is_alive"]]


def test_processes_whose_parent_was_killed_end_by_themselves(shop: Shop) -> None:
    with worker(shop, "shop", "--processes", "2") as parent:
        assert parent.stdout is not None
        parent.stdout.readline()
        parent.kill()
        _, err = parent.communicate(timeout=LIMIT_SECONDS)
    assert err.count("Stopping: ") == 2


def test_processes_that_cannot_start_end_the_parent_with_their_exit_code(shop: Shop) -> None:
    run = shop.call_process("worker", "nonsense", "--processes", "2")
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr.count("error: ") == 1
    few = shop.call("worker", "shop", "--processes", "0")
    assert few.returncode == 2


def test_a_second_worker_with_the_same_executor_id_does_not_start(shop: Shop) -> None:
    shop.environment["TIMESTEP_EXECUTOR_ID"] = "till-1"
    try:
        with worker(shop, "shop"):
            second = shop.call("worker", "shop")
    finally:
        del shop.environment["TIMESTEP_EXECUTOR_ID"]
    assert (second.returncode, second.stdout) == (1, "")
    assert second.stderr.startswith("error: Another live process has the executor id 'till-1'.\n")
    assert "\nhint: " in second.stderr
