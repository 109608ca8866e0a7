"""An executor that is cut off from the database for a while, in a network namespace of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from comparison import STEPS, WHOLE, left_by_porter
from drill import Drill, wait_until
from partition import NoNamespace, Partition, partition
from psycopg.conninfo import conninfo_to_dict


@pytest.fixture
def cable(drill: Drill) -> Iterator[Partition]:
    server = conninfo_to_dict(drill.server.conninfo(drill.database))
    try:
        with partition(Path(str(server["host"])) / f".s.PGSQL.{server['port']}") as made:
            yield made
    except NoNamespace as reason:
        pytest.skip(str(reason))


@pytest.mark.needs("ip")
def test_an_executor_that_was_cut_off_is_fenced_when_it_is_connected_again(drill: Drill, cable: Partition) -> None:
    quick = {"TIMESTEP_TAKEOVER_SECONDS": "1"}
    stops = {"one": "body 2", "two": "recorded 2", "three": "close before"}
    first = drill.start(
        "executor",
        environment={**quick, "PG_CONNECTION_URI": cable.url(drill.database)},
        namespace=cable.namespace,
        is_far=True,
        stops=stops,
        runs=list(stops),
    )
    drill.wait_reached(*stops, child=first)
    second = drill.start("executor", environment=quick, is_far=True)
    drill.wait_launched(second)
    cable.cut()
    for run in stops:
        drill.wait_status(run, "succeeded")
        wait_until(lambda run=run: drill.workflow_status(run) == "SUCCESS", f"{run} is over")
    begun = len(drill.lines())
    drill.release()  # bodies end, and their results cannot be stored
    cable.mend()
    wait_until(lambda: "was taken over" in first.text(), "the first executor sees that it was taken over")
    wait_until(
        lambda: {line["run"] for line in drill.lines() if line["what"] == "finished"} == set(stops),
        "the callers in the first executor have their results",
    )
    assert [line for line in drill.lines(begun) if line["what"] == "start"] == []
    for run in stops:
        assert left_by_porter(drill, run) == WHOLE
    assert drill.started("one") == [*STEPS[:2], *STEPS[1:]]
    assert drill.started("two") == STEPS
    assert drill.started("three") == STEPS
