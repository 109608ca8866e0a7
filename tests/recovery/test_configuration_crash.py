"""A killed process whose runs have a provider of their own: who goes on with them, and who leaves them waiting."""

from __future__ import annotations

from typing import Any

import pytest
from comparison import STEPS, WHOLE, left_by_porter
from drill import Drill


def test_the_same_program_started_again_goes_on(drill: Drill) -> None:
    first = drill.start("configured_executor", stops={"one": "recorded 2"}, runs=["one"])
    drill.wait_reached("one", child=first)
    first.kill()
    second = drill.start("configured_executor", runs=["one"])
    drill.wait_lines(
        lambda lines: any(line["what"] == "finished" and line["pid"] == second.pid for line in lines),
        "the second caller has the result",
        child=second,
    )
    assert left_by_porter(drill, "one") == WHOLE
    assert drill.started("one") == STEPS


@pytest.mark.parametrize("options", [{"is_registered": True}, {"is_default": True}], ids=["registered", "default"])
def test_a_worker_without_the_provider_leaves_the_run_to_one_that_has_it(drill: Drill, options: dict[str, Any]) -> None:
    first = drill.start("configured_executor", stops={"one": "recorded 2"}, runs=["one"])
    drill.wait_reached("one", child=first)
    stranger = drill.start("configured_executor")
    drill.wait_launched(stranger)
    first.kill()
    drill.wait_status("one", "interrupted")
    assert drill.rows("select reason from timestep.runs where id = 'one'") == [("configuration_missing",)]
    drill.start("configured_executor", **options)
    drill.wait_status("one", "succeeded")
    assert left_by_porter(drill, "one") == WHOLE
    assert drill.started("one") == STEPS
