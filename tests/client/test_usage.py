"""Usage summed up by model, agent, run, session and day: an unknown price is counted, and is no zero."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from stored_runs import close_run

from timestep.client import Client
from timestep.errors import InvalidInputError
from timestep.records import PriceData, UsageKey
from timestep.store.connection import Database
from timestep.store.usage import ModelCallUsage, list_usage, sum_usage

NOON = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


def call(run_id: str, turn: int, *, cost: int | None, **told: Any) -> ModelCallUsage:
    values: dict[str, Any] = {
        "agent": "desk", "model": "gpt-4.1", "provider": "OpenAI", "requests": 2, "input_tokens": 100,
        "cached_tokens": 10, "output_tokens": 20, "reasoning_tokens": 5, "created_at": NOON,
    }  # fmt: skip
    return ModelCallUsage(
        run_id=run_id, step=f"model_turn:{turn}:desk", segment=1, cost_micro_usd=cost, **(values | told)
    )


CALLS = [
    call("a", 1, cost=700),
    call("a", 2, cost=None, model="mine", provider=None),
    call("b", 1, cost=2**40, agent="clerk", created_at=NOON + timedelta(hours=12)),
    call("b", 2, cost=0, agent="clerk", model=None, created_at=NOON - timedelta(hours=13)),
]


@pytest.fixture
def stored(database: Database) -> Database:
    for run_id in ("a", "b"):
        close_run(database, run_id, status="succeeded", model_calls=[each for each in CALLS if each.run_id == run_id])
    database.run_sync(
        lambda connection: connection.execute(sa.text("update timestep.runs set session_id = 'ann' where id = 'a'"))
    )
    return database


@pytest.mark.parametrize(
    ("by", "expected"),
    [
        ("model", [("gpt-4.1", 2, 2**40 + 700, 0), (None, 1, 0, 0), ("mine", 1, None, 1)]),
        ("agent", [("clerk", 2, 2**40, 0), ("desk", 2, 700, 1)]),
        ("run", [("b", 2, 2**40, 0), ("a", 2, 700, 1)]),
        ("session", [(None, 2, 2**40, 0), ("ann", 2, 700, 1)]),
        ("day", [("2026-11-20", 1, 0, 0), ("2026-11-21", 2, 700, 1), ("2026-11-22", 1, 2**40, 0)]),
    ],
)
def test_calls_are_summed_up_by_what_they_have_in_common(stored: Database, by: UsageKey, expected: list[Any]) -> None:
    found = stored.run_sync(sum_usage, by=by)
    assert [(each.key, each.calls, each.cost_micro_usd, each.unpriced_calls) for each in found] == expected
    assert sum(each.input_tokens for each in found) == 400
    assert all(each.reasoning_tokens == 5 * each.calls for each in found)
    assert all(each.requests == 2 * each.calls for each in found)


def test_one_model_of_two_providers_is_two(stored: Database) -> None:
    close_run(stored, "c", model_calls=[call("c", 1, cost=1, provider="Azure")])
    found = stored.run_sync(sum_usage, by="model")
    assert [each.provider for each in found if each.key == "gpt-4.1"] == ["OpenAI", "Azure"]


def test_the_price_data_of_a_group_are_told_once_each(stored: Database) -> None:
    day = date(2026, 10, 1)
    priced = [("genai-prices 1", day), ("genai-prices 1", day), ("genai-prices 2", day), ("local", None), (None, None)]
    calls = [
        call("p", turn, cost=1, agent="priced", price_source=source, priced_at=at)
        for turn, (source, at) in enumerate(priced, 1)
    ]
    close_run(stored, "p", model_calls=calls)
    assert stored.run_sync(list_usage, "p") == calls

    found = {each.key: each.prices for each in stored.run_sync(sum_usage, by="agent")}

    assert found["priced"] == [
        PriceData(source="genai-prices 1", priced_at=day),
        PriceData(source="genai-prices 2", priced_at=day),
        PriceData(source="local", priced_at=None),
    ]
    assert found["desk"] == []


def test_what_finished_before_is_left_out(stored: Database) -> None:
    [found] = stored.run_sync(sum_usage, by="day", since=NOON + timedelta(seconds=1))
    assert found.key == "2026-11-22"
    assert stored.run_sync(sum_usage, by="model", since=NOON + timedelta(days=9)) == []


async def test_a_client_lists_usage_and_refuses_what_it_cannot_list(stored: Database) -> None:
    async with Client(stored.url) as client:
        assert await client.list_usage(by="agent") == stored.run_sync(sum_usage, by="agent")
        assert len(await client.list_usage(since=NOON)) == 2
        with pytest.raises(InvalidInputError, match="colour"):
            await client.list_usage(by="colour")  # type: ignore[arg-type] - refused on purpose
        with pytest.raises(InvalidInputError, match="time zone"):
            await client.list_usage(since=datetime(2026, 1, 1))
