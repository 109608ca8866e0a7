"""`timestep usage`: what model calls used and cost, and what is not known of it."""

from __future__ import annotations

import json
from dataclasses import fields
from datetime import UTC, datetime, timedelta

import pytest
from command_line import Shop

from timestep.records import UsageTotal

INSERT = """
insert into timestep.usage
  (run_id, step, segment, agent, model, requests, input_tokens, cached_tokens, output_tokens, reasoning_tokens,
   cost_micro_usd, created_at, price_source, priced_at)
values (%s, 'model_turn:1:desk', 1, 'desk', %s, 1, 1000, 0, 10, 0, %s, %s, %s, '2026-10-01')
"""


@pytest.fixture(scope="module")
def stored(shop_of_module: Shop) -> Shop:
    """A shop with calls of three days: two with a price, three without one."""
    assert shop_of_module.call("db", "migrate").returncode == 0
    now = datetime.now(UTC)
    with shop_of_module.server.connect(shop_of_module.database) as connection:
        for run, model, cost, days in (
            ("r1", "gpt-4.1", 1_234_567, 0),
            ("r2", "gpt-4.1", 33, 3),
            ("r3", "gpt-4.1", None, 3),
            ("r4", "mine", None, 3),
            ("r5", "mine", None, 20),
        ):
            source = None if cost is None else f"genai-prices {run}"
            connection.execute(INSERT, (run, model, cost, now - timedelta(days=days), source))
    return shop_of_module


def test_a_table_shows_cost_and_counts_the_calls_without_a_price(stored: Shop) -> None:
    ended = stored.call("usage", "--since", "4w")
    header, gpt, mine, total = (" ".join(line.split()) for line in ended.stdout.splitlines())
    assert header == "MODEL PROVIDER CALLS INPUT CACHED OUTPUT REASONING COST USD"
    assert gpt == "gpt-4.1 3 3,000 0 30 0 1.234600 + 1 call without a price"
    assert mine == "mine 2 2,000 0 20 0 unknown"
    assert total == "total 5 5,000 0 50 0 1.234600 + 3 calls without a price"
    assert "3 calls without a price" in ended.stderr


def test_without_since_it_is_the_last_seven_days(stored: Shop) -> None:
    ended = stored.call("usage", "--by", "run")
    assert [line.split()[0] for line in ended.stdout.splitlines()] == ["RUN", "r1", "r2", "r3", "r4", "total"]


def test_json_has_the_fields_of_the_record_and_null_for_an_unknown_cost(stored: Shop) -> None:
    loaded = json.loads(stored.call("usage", "--by", "model", "--since", "2w", "--json").stdout)
    assert list(loaded) == ["by", "since", "groups", "total"]
    assert list(loaded["groups"][0]) == [field.name for field in fields(UsageTotal)]
    assert [group["cost_micro_usd"] for group in loaded["groups"]] == [1_234_600, None]
    assert (loaded["total"]["cost_micro_usd"], loaded["total"]["unpriced_calls"]) == (1_234_600, 2)
    priced = [{"source": f"genai-prices {run}", "priced_at": "2026-10-01"} for run in ("r1", "r2")]
    assert [group["prices"] for group in [*loaded["groups"], loaded["total"]]] == [priced, [], priced]


def test_of_no_calls_nothing_is_printed(stored: Shop) -> None:
    ended = stored.call("usage", "--by", "session", "--since", "0min")
    assert (ended.returncode, ended.stdout) == (0, "")
    assert "No model call" in ended.stderr
    assert json.loads(stored.call("usage", "--since", "0min", "--json").stdout)["total"]["cost_micro_usd"] is None


@pytest.mark.parametrize(
    ("since", "said"),
    [
        ("7", "no time"),
        ("-7d", "no time"),
        ("seven days", "no time"),
        ("7 d", "no time"),
        ("99999999999d", "no time"),
        ("2026-13-01", "no time"),
        ("", "no time"),
        ("2199-01-01", "future"),
    ],
)
def test_a_bad_time_is_refused_with_what_to_write(stored: Shop, since: str, said: str) -> None:
    ended = stored.call("usage", f"--since={since}")
    assert ended.returncode == 2
    assert said in ended.stderr
    assert "--since" in ended.stderr
    assert "hint: " in ended.stderr


@pytest.mark.parametrize("since", ["2026-01-01", "2026-01-01T10:00:00+02:00", "90min", "1w"])
def test_days_times_and_spans_are_taken(stored: Shop, since: str) -> None:
    assert stored.call("usage", "--since", since, "--json").returncode == 0
