"""The envelope of a snapshot."""

from __future__ import annotations

from typing import Any

import pytest

from timestep.errors import InvalidInputError
from timestep.run_state.envelope import kind_of, python_snapshot


@pytest.mark.parametrize(
    ("state", "kind"),
    [
        ({"current_step": {"type": "next_step_interruption"}, "model_responses": [{}]}, "interrupted"),
        ({"current_step": {"type": "next_step_run_again"}, "model_responses": [{}]}, "checkpoint"),
        ({"current_step": None, "model_responses": [{}]}, "final"),
        ({"current_step": None, "model_responses": []}, "saved"),
    ],
)
def test_its_kind_is_read_from_the_state(state: dict[str, Any], kind: str) -> None:
    assert kind_of(state) == kind


def test_it_names_the_writer_and_leaves_the_state_untouched() -> None:
    state = {"$schemaVersion": "1.21", "current_step": None, "model_responses": []}
    snapshot = python_snapshot(state, agent="desk", sdk_version="0.24.0", run_id="r", kind="final", output=[1])

    assert snapshot.state is state
    assert (snapshot.sdk, snapshot.sdk_version, snapshot.schema_version) == ("python", "0.24.0", "1.21")
    assert (snapshot.kind, snapshot.output, snapshot.run_id, snapshot.id) == ("final", [1], "r", None)


@pytest.mark.parametrize("state", [{}, {"$schemaVersion": ""}, {"$schemaVersion": 1.21}])
def test_what_has_no_schema_version_is_refused(state: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match=r"no \$schemaVersion"):
        python_snapshot(state, agent="desk", sdk_version="0.24.0")
