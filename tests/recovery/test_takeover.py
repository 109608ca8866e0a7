"""Several executors of one database: each run belongs to one of them, and moves when that one is gone."""

from __future__ import annotations

import signal

import comparison
from comparison import STEPS, WHOLE, left_by_porter
from drill import Drill, wait_until

from timestep.client.connector import connect_client
from timestep.store.connection import open_database

FREE_LOCKS = """
select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()
"""


def test_the_runs_of_a_killed_executor_go_on_once_each_in_the_others(drill: Drill) -> None:
    stops = {"one": "body 1", "two": "recorded 2", "three": "body 4", "four": "close before"}
    others = [drill.start("executor"), drill.start("executor")]
    for other in others:
        drill.wait_launched(other)
    first = drill.start("executor", stops=stops, runs=list(stops))
    drill.wait_reached(*stops, child=first)
    first.kill()
    for run in stops:
        drill.wait_status(run, "succeeded")
        assert left_by_porter(drill, run) == WHOLE
        assert drill.rows("select attempt from timestep.runs where id = %s", run) == [(2,)]
    assert drill.started("one") == [STEPS[0], *STEPS]
    assert drill.started("two") == STEPS
    assert drill.started("three") == [*STEPS[:4], *STEPS[3:]]
    assert drill.started("four") == STEPS


def test_a_process_that_takes_no_runs_leaves_a_takeover_to_those_that_do(drill: Drill) -> None:
    """Who takes over only queues the runs; any of them may then execute them."""
    bystander = drill.start("executor", takes_runs=False, environment={"TIMESTEP_TAKEOVER_SECONDS": "1"})
    other = drill.start("executor", environment={"TIMESTEP_TAKEOVER_SECONDS": "4"})
    for child in (bystander, other):
        drill.wait_launched(child)
    for run, taker in (("one", other), ("two", bystander)):
        if taker is bystander:
            other.kill()  # nobody else is there
        first = drill.start("executor", is_far=True, stops={run: "body 2"}, runs=[run])
        drill.wait_reached(run, child=first)
        first.kill()
        drill.wait_status(run, "succeeded")
        assert "go on here" in taker.text()
        assert ("go on here" in bystander.text()) == (taker is bystander)
        assert left_by_porter(drill, run) == WHOLE


def test_a_paused_executor_that_was_taken_over_is_fenced_when_it_comes_back(drill: Drill) -> None:
    quick = {"TIMESTEP_TAKEOVER_SECONDS": "3"}  # the gate trusts its last look at the lock for 3 s
    points = ("body 2", "end 2", "body 3", "start after", "close before", "close uncommitted", "close after")
    stops = {point.replace(" ", "-"): point for point in points}
    first = drill.start("executor", environment=quick, stops=stops, runs=list(stops))
    drill.wait_reached(*stops, child=first)
    first.send(signal.SIGSTOP)
    drill.rows(FREE_LOCKS)  # a frozen process keeps its lock as long as its connection lives
    second = drill.start("executor", environment=quick)
    for run in stops:
        wait_until(lambda run=run: drill.workflow_status(run) == "SUCCESS", f"{run} is over")
    assert [left_by_porter(drill, run) for run in stops] == [WHOLE] * len(stops)
    whole = [comparison.left_by(drill, run) for run in stops]
    begun = len(drill.lines())
    drill.release()
    first.send(signal.SIGCONT)
    wait_until(lambda: "was taken over" in first.text(), "the first executor sees that it was taken over")
    drill.wait_lines(
        lambda lines: {line["run"] for line in lines if line["what"] == "finished"} == set(stops),
        "the callers in the first executor have their results",
        child=first,
    )
    after = drill.lines(begun)
    assert [line for line in after if line["what"] == "start"] == []
    assert {line["output"] for line in after if line["what"] == "finished"} == {"carried 2 boxes, saw 5 items"}
    assert [comparison.left_by(drill, run) for run in stops] == whole
    attempts = "select attempt from timestep.tool_calls where run_id = 'end-2' order by call_key"
    assert drill.rows(attempts) == [(2,), (2,)], "the result of the fenced attempt was not taken"
    assert second.pid not in drill.warm.codes


def test_a_fenced_executor_begins_no_step_of_a_run_that_goes_on_elsewhere(drill: Drill) -> None:
    quick = {"TIMESTEP_TAKEOVER_SECONDS": "3"}  # the gate trusts its last look at the lock for 3 s
    first = drill.start("executor", environment=quick, stops={"one": "recorded 2"}, runs=["one"])
    drill.wait_reached("one", child=first)
    first.send(signal.SIGSTOP)
    drill.rows(FREE_LOCKS)
    second = drill.start("executor", environment=quick, stops={"one": "body 4"})
    drill.wait_reached("one", child=second)
    first.send(signal.SIGCONT)
    wait_until(lambda: "was taken over" in first.text(), "the first executor sees that it was taken over")
    drill.release(first)
    drill.wait_lines(
        lambda lines: [line for line in lines if line["pid"] == first.pid][-1]["what"] in ("fenced", "start"),
        "the first executor comes to its next step",
        child=first,
    )
    drill.release()
    drill.wait_status("one", "succeeded")
    assert left_by_porter(drill, "one") == WHOLE
    assert drill.started("one") == STEPS


def test_a_paused_executor_begins_no_body_before_it_has_looked_at_its_lock(drill: Drill) -> None:
    quick = {"TIMESTEP_TAKEOVER_SECONDS": "3"}  # the gate trusts its last look at the lock for 3 s
    first = drill.start("executor", environment=quick, stops={"one": "begin 3"}, runs=["one"])
    drill.wait_reached("one", child=first)
    first.send(signal.SIGSTOP)
    paused_at = drill.rows("select now()")[0][0]
    drill.rows(FREE_LOCKS)
    second = drill.start("executor", environment=quick, stops={"one": "body 3"})
    drill.wait_reached("one", child=second)
    wait_until(lambda: drill.rows("select now() > %s + interval '3.5 seconds'", paused_at) == [(True,)], "a long pause")
    drill.release(first)
    first.send(signal.SIGCONT)
    drill.wait_lines(
        lambda lines: any(line["what"] == "fenced" and line["pid"] == first.pid for line in lines),
        "the first executor is fenced at its step",
        child=first,
    )
    drill.release()
    drill.wait_status("one", "succeeded")
    bodies = [line for line in drill.lines() if line["what"] == "start" and line["kind"] == "model"]
    assert [line["pid"] for line in bodies if line["step"] == 3] == [second.pid]
    assert left_by_porter(drill, "one") == WHOLE


def test_a_restart_of_the_server_does_not_make_live_executors_take_over_each_other(drill: Drill) -> None:
    """One of them comes back late, and its lock was seen free before the restart: it has its time all the same."""
    patient = {"TIMESTEP_TAKEOVER_SECONDS": "60"}
    first, late = (
        drill.start("executor", environment=patient, stops={run: "body 2"}, runs=[run]) for run in ("one", "two")
    )
    drill.wait_reached("one", child=first)
    drill.wait_reached("two", child=late)
    late.send(signal.SIGSTOP)
    drill.execute("update timestep.executors set free_since = now() - interval '1 hour' where pid = %s", late.pid)
    drill.kill_server()
    wait_until(lambda: "has its lock back" in first.text(), "the first executor is back")
    wait_until(
        lambda: drill.rows("select now() - pg_postmaster_start_time() > interval '5 seconds'") == [(True,)],
        "the server is up for as long as an executor needs to take over",
    )
    late.send(signal.SIGCONT)
    wait_until(lambda: "has its lock back" in late.text(), "the other one is back")
    drill.release()
    for run in ("one", "two"):
        drill.wait_status(run, "succeeded")
        assert left_by_porter(drill, run) == WHOLE
        assert drill.started(run) == STEPS
        assert drill.rows("select attempt from timestep.runs where id = %s", run) == [(1,)]
    assert "is gone" not in first.text() + late.text()


def test_a_second_live_process_with_the_same_executor_id_does_not_start(drill: Drill) -> None:
    same = {"TIMESTEP_EXECUTOR_ID": "porter-1"}
    first = drill.start("executor", environment=same, stops={"one": "body 2"}, runs=["one"])
    drill.wait_reached("one", child=first)
    second = drill.start("executor", environment=same)
    assert drill.warm.code(second.pid) == 1
    assert "ExecutorIdInUseError" in second.text()
    assert "porter-1" in second.text()
    drill.release()
    drill.wait_status("one", "succeeded")
    assert drill.started("one") == STEPS


def test_a_second_start_with_the_same_executor_id_finishes_what_the_first_left(drill: Drill) -> None:
    same = {"TIMESTEP_EXECUTOR_ID": "porter-1"}
    first = drill.start("executor", environment=same, stops={"one": "body 2"}, runs=["one"])
    drill.wait_reached("one", child=first)
    first.kill()
    drill.start("executor", environment=same)
    drill.wait_status("one", "succeeded")
    assert left_by_porter(drill, "one") == WHOLE
    assert drill.started("one") == [*STEPS[:2], *STEPS[1:]]


def test_a_second_start_of_a_program_finishes_what_the_first_left_without_being_asked(drill: Drill) -> None:
    first = drill.start("executor", stops={"one": "recorded 3", "two": "body 1"}, runs=["one"], queued=["two"])
    drill.wait_reached("one", child=first)
    first.kill()
    drill.start("executor")
    for run in ("one", "two"):
        drill.wait_status(run, "succeeded")
        assert left_by_porter(drill, run) == WHOLE
    assert drill.started("one") == STEPS


def test_a_stopped_executor_hands_its_runs_over(drill: Drill) -> None:
    first = drill.start("executor", stops={"one": "recorded 2"}, queued=["one"])
    drill.wait_reached("one", child=first)
    (drill.folder / "end").touch()
    first.end()
    (drill.folder / "end").unlink()
    drill.start("executor")
    drill.wait_status("one", "succeeded")
    assert left_by_porter(drill, "one") == WHOLE
    assert drill.started("one") == STEPS


def test_a_rate_limit_on_starts_does_not_hold_up_what_is_taken_over(drill: Drill) -> None:
    database = open_database(drill.server.url(drill.database), application=drill.database)
    client = connect_client(database, name=drill.database)
    for name, global_concurrency in (("few", None), ("one", 1)):
        client.register_queue(
            name, limiter={"limit": 1, "period": 3600}, global_concurrency=global_concurrency, polling_interval_sec=0.1
        )
    client.destroy()
    database.close()
    stops = {"early": "recorded 2", "alone": "recorded 2"}
    first = drill.start("executor", stops=stops, queued=["early"], queue_name="few")
    drill.wait_reached("early", child=first)
    other = drill.start("executor", stops=stops, queued=["alone"], queue_name="one")
    wait_until(lambda: drill.workflow_status("alone") == "PENDING", "the run of the other queue is started")
    for child in (first, other):
        child.send(signal.SIGSTOP)
    drill.execute("update dbos.workflow_status set started_at_epoch_ms = 0")  # the hour is over
    drill.start("executor", stops={"late": "recorded 2"}, queued=["late"], queue_name="few")
    wait_until(lambda: drill.workflow_status("late") == "PENDING", "another one has started since")
    for child in (first, other):
        child.kill()
    drill.wait_status("early", "succeeded")
    assert drill.started("early") == STEPS
    query = "select queue_name from dbos.workflow_status where workflow_uuid = 'alone'"
    assert drill.rows(query) == [("one",)], "its queue limits more than starts"


def test_sigterm_lets_a_step_finish_and_hands_over_without_a_takeover(drill: Drill) -> None:
    """No new step begins, however long the last one takes; another machine goes on though it takes over nobody."""
    patient = {"TIMESTEP_TAKEOVER_SECONDS": "3600"}
    stops = {"one": "body 2", "two": "recorded 2"}
    first = drill.start("executor", environment=patient, is_far=True, stops=stops, runs=list(stops))
    drill.wait_reached(*stops, child=first)
    second = drill.start("executor", environment=patient, is_far=True)
    drill.wait_launched(second)
    first.send(signal.SIGTERM)
    wait_until(
        lambda: drill.rows("select 1 from timestep.executors where free_since is null having count(*) = 2"), "both live"
    )
    drill.release(first)
    drill.wait_lines(lambda lines: any(line["what"] == "left" for line in lines), "it has left", child=second)
    for run in stops:
        drill.wait_status(run, "succeeded")
        assert left_by_porter(drill, run) == WHOLE
        assert drill.started(run) == STEPS
    where = [line["pid"] for line in drill.lines() if line["what"] == "start" and line["kind"] == "step"]
    assert where.count(first.pid) == 4, "the two steps of each run that had begun, and no other one"
    assert [line["has_finished"] for line in drill.lines() if line["what"] == "left"] == [True]


def test_a_drain_that_lasts_lets_no_step_begin(drill: Drill) -> None:
    first = drill.start("executor", stops={"one": "body 2", "two": "end 1"}, runs=["one", "two"])
    drill.wait_reached("one", "two", child=first)
    first.send(signal.SIGTERM)
    seen = drill.rows("select now()")[0][0]
    (drill.folder / "release_two").touch()
    wait_until(lambda: drill.rows("select now() > %s + interval '2.5 seconds'", seen) == [(True,)], "two ticks")
    assert drill.started("two") == STEPS[:1]
    drill.release()
    drill.wait_lines(lambda lines: any(line["what"] == "left" for line in lines), "it has left", child=first)
    assert drill.started("two") == STEPS[:1]
    assert drill.started("one") == STEPS[:2]


def test_a_run_whose_agent_the_executor_does_not_know_waits_for_one_that_knows_it(drill: Drill) -> None:
    first = drill.start("executor", stops={"one": "recorded 2"}, runs=["one"])
    drill.wait_reached("one", child=first)
    stranger = drill.start("executor", has_agent=False)
    drill.wait_launched(stranger)
    first.kill()
    drill.wait_status("one", "interrupted")
    assert drill.rows("select reason from timestep.runs where id = 'one'") == [("agent_not_registered",)]
    stranger.kill()
    drill.start("executor")
    drill.wait_status("one", "succeeded")
    assert left_by_porter(drill, "one") == WHOLE
    assert drill.started("one") == STEPS
