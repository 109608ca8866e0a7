"""Prices of model calls: from the data of the package alone, unknown is None, this machine is free."""

from __future__ import annotations

import logging
import socket
from datetime import UTC, date, datetime
from typing import Any

import pytest

from timestep.pricing import Price, is_on_this_machine, price_of

AT = datetime(2026, 11, 1, tzinfo=UTC)
OPENAI = "https://api.openai.com/v1/"


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("a price was looked for in the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def price(model: str | None, **told: Any) -> Price | None:
    tokens = {"input_tokens": 1_000, "cached_tokens": 200, "output_tokens": 50}
    return price_of(model, **(tokens | {"at": AT} | told))


def cost(model: str | None, **told: Any) -> int | None:
    found = price(model, **told)
    return found.cost_micro_usd if found is not None else None


def test_a_known_model_has_a_price_with_its_source_and_day() -> None:
    found = price("gpt-4.1", base_url=OPENAI)
    assert found is not None
    assert found.cost_micro_usd == 800 * 2 + 200 * 0.5 + 50 * 8
    assert found.source.startswith("genai-prices 0.")
    assert found.priced_at is not None
    assert date(2026, 1, 1) < found.priced_at <= datetime.now(UTC).date()


@pytest.mark.parametrize(
    ("model", "told"),
    [
        ("gpt-4.1", {}),
        ("gpt-4.1-2025-04-14", {}),
        ("openai/gpt-4.1", {}),
        ("gpt-4.1", {"provider": "openai"}),
        ("gpt-4.1", {"base_url": "https://somebody.openai.azure.com/openai/"}),
    ],
)
def test_the_provider_is_told_by_url_by_prefix_or_by_the_name_of_the_model(model: str, told: dict[str, Any]) -> None:
    assert cost(model, **told) == 2_100


@pytest.mark.parametrize(
    ("model", "told"),
    [
        (None, {}),
        ("gpt-99", {}),
        ("gpt-99", {"base_url": OPENAI}),
        ("gpt-4.1", {"base_url": "https://models.example.com/v1"}),
        ("ollama/gpt-oss:20b", {}),
        ("gpt-oss:20b-cloud", {"base_url": "https://ollama.com"}),
        ("mine/claude-sonnet-4-5", {}),
        ("gpt-4.1", {"input_tokens": 0, "cached_tokens": 0, "output_tokens": 0}),
    ],
)
def test_what_is_not_known_has_no_price(model: str | None, told: dict[str, Any]) -> None:
    assert price(model, **told) is None


def test_tokens_that_cannot_be_are_said_in_the_log_and_have_no_price(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="timestep"):
        assert price("gpt-4.1", cached_tokens=2_000) is None
    assert "gpt-4.1" in caplog.text


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8080/v1", "http://localhost:11434", "localhost:11434", "http://[::1]/"]
)
def test_a_model_on_this_machine_costs_nothing_whatever_its_name(url: str) -> None:
    assert price("gpt-4.1", base_url=url) == Price(cost_micro_usd=0, source="local", priced_at=None)
    assert cost(None, base_url=url, input_tokens=0, cached_tokens=0, output_tokens=0) == 0


@pytest.mark.parametrize(
    "url", ["https://localhost.example.com", "http://10.0.0.2:8000", "", "http://[", "https://ollama.com"]
)
def test_another_machine_is_not_this_one(url: str) -> None:
    assert not is_on_this_machine(url)


def test_a_price_holds_from_its_day_on() -> None:
    before, after = (cost("o3", at=datetime(2025, month, 1, tzinfo=UTC)) for month in (5, 7))
    assert before is not None
    assert after is not None
    assert before > after


def test_a_cost_is_rounded_to_the_nearest_millionth() -> None:
    assert cost("gpt-4.1", input_tokens=1, cached_tokens=1, output_tokens=0) == 1
    assert cost("gpt-4.1-nano", input_tokens=1, cached_tokens=0, output_tokens=0) == 0
