"""The recorded steps of the scenario are those of the committed file, or `DURABLE_VERSION` is another.

Runs that were started before a change of the step sequence cannot be replayed after it; a new version keeps them on
the code that they began with. After such a change raise `timestep.ids.DURABLE_VERSION` and write the file again:

    TIMESTEP_WRITE_HISTORY=1 python -m pytest tests/recovery/test_history.py
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from comparison import Reference

from timestep.ids import DURABLE_VERSION

FILE = Path(__file__).with_name("history.json")


def test_the_step_history_changes_only_with_the_durable_version(reference: Reference) -> None:
    steps = [list(step) for step in sorted(reference.history)]
    committed = json.loads(FILE.read_text()) if FILE.exists() else {"durable_version": None, "steps": []}
    if os.environ.get("TIMESTEP_WRITE_HISTORY"):
        if steps != committed["steps"] and committed["durable_version"] == DURABLE_VERSION:
            pytest.fail("The step history has changed: raise timestep.ids.DURABLE_VERSION before it is written again.")
        lines = ",\n".join(f"    {json.dumps(step)}" for step in steps)
        FILE.write_text(f'{{\n  "durable_version": {DURABLE_VERSION},\n  "steps": [\n{lines}\n  ]\n}}\n')
        return
    assert committed["durable_version"] == DURABLE_VERSION, "DURABLE_VERSION was raised: write the history again"
    assert steps == committed["steps"], "the step history has changed: raise timestep.ids.DURABLE_VERSION"
