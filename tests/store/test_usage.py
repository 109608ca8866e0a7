"""Rows of usage: stored once however often the transaction is repeated."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from stored_runs import close_run

from timestep.store.connection import Database
from timestep.store.usage import ModelCallUsage, list_usage

NOON = datetime(2026, 11, 21, 12, 0, 0, 123456, tzinfo=UTC)
USAGE = ModelCallUsage(
    run_id="r",
    step="model_turn:1:desk",
    segment=1,
    agent="desk",
    model="gpt",
    provider=None,
    requests=2,
    input_tokens=2**40,
    cached_tokens=1,
    output_tokens=3,
    reasoning_tokens=0,
    created_at=NOON,
)


def test_usage_stored_twice_keeps_what_was_stored_first(database: Database) -> None:
    priced = replace(USAGE, step="model_turn:2:desk", cost_micro_usd=2**40, created_at=NOON + timedelta(seconds=1))
    close_run(database, "r", model_calls=[priced, USAGE])
    close_run(database, "r", segment=2, model_calls=[replace(USAGE, input_tokens=0)])

    assert database.run_sync(list_usage, "r") == [USAGE, priced]
