"""Conversation items: stored once, in order, whatever they hold."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from timestep.errors import InvalidInputError
from timestep.store.connection import Database
from timestep.store.json_text import dump_json, storable_text
from timestep.store.sessions import (
    append_items,
    clear_session,
    last_position,
    pop_item,
    read_items,
)
from timestep.store.tables import session_items

TRICKY = {
    "zeichen": "Grüße \U0001f600",
    "zero": "a\x00b",
    "lone surrogates": "\ud800 and \udfff",
    "escapes": '\\u0000 "quoted" \x7f',
    "numbers": [0, -1, 2**70, 1.5, 1e-300],
    "nothing": None,
    "order": {"b": 1, "a": 2},
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


def test_an_item_comes_back_exactly_as_it_was(database: Database) -> None:
    database.run_sync(append_items, "s", [TRICKY])
    (item,) = database.run_sync(read_items, "s")

    assert item == TRICKY
    assert list(item["order"]) == ["b", "a"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50)
@given(item=st.dictionaries(st.text(), JSON))
def test_every_json_object_comes_back(database: Database, item: dict[str, Any]) -> None:
    database.run_sync(clear_session, "s")
    database.run_sync(append_items, "s", [item])

    assert database.run_sync(read_items, "s") == [item]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), object(), {1, 2}, b"bytes"])
def test_what_is_not_json_is_refused_and_nothing_is_stored(database: Database, value: object) -> None:
    with pytest.raises(InvalidInputError, match="cannot be stored as JSON"):
        database.run_sync(append_items, "s", [{"fine": 1}, {"value": value}])

    assert database.run_sync(last_position, "s") == 0


def test_a_value_that_holds_itself_is_refused() -> None:
    value: list[Any] = []
    value.append(value)

    with pytest.raises(InvalidInputError, match="cannot be stored as JSON"):
        dump_json(value)


def test_text_columns_take_json_escapes_for_what_they_cannot_hold() -> None:
    assert storable_text('{"a": "\x00\ud83dé"}') == '{"a": "\\u0000\\ud83dé"}'


def test_items_are_read_in_order_and_the_latest_of_them_on_request(database: Database) -> None:
    items = numbered(5)
    assert database.run_sync(append_items, "s", items[:2], run_id="first") == 2
    assert database.run_sync(append_items, "s", []) == 0
    assert database.run_sync(append_items, "s", items[2:]) == 3
    database.run_sync(append_items, "another", numbered(1))

    assert database.run_sync(read_items, "s") == items
    assert database.run_sync(read_items, "s", limit=2) == items[3:]
    assert database.run_sync(read_items, "s", limit=0) == []
    assert database.run_sync(read_items, "s", limit=9) == items
    assert database.run_sync(read_items, "s", up_to_position=3) == items[:3]
    assert database.run_sync(read_items, "s", up_to_position=3, limit=1) == items[2:3]
    assert database.run_sync(read_items, "nobody") == []


def test_a_position_is_never_given_twice(database: Database) -> None:
    database.run_sync(append_items, "s", numbered(3))
    assert database.run_sync(pop_item, "s") == {"n": 2}
    assert database.run_sync(last_position, "s") == 3
    database.run_sync(append_items, "s", [{"n": "new"}])

    assert database.run_sync(read_items, "s", up_to_position=3) == numbered(2)
    assert database.run_sync(positions, "s") == [1, 2, 4]

    database.run_sync(clear_session, "s")
    assert database.run_sync(pop_item, "s") is None
    database.run_sync(append_items, "s", numbered(1))
    assert database.run_sync(positions, "s") == [5]


def test_a_session_that_does_not_exist_is_empty(database: Database) -> None:
    assert database.run_sync(last_position, "nobody") == 0
    assert database.run_sync(pop_item, "nobody") is None
    database.run_sync(clear_session, "nobody")
    assert database.run_sync(last_position, "nobody") == 0


async def test_eight_writers_at_once_lose_nothing_and_keep_their_items_together(database: Database) -> None:
    async def write(writer: int) -> None:
        for batch in range(5):
            items = [{"writer": writer, "n": batch * 3 + place} for place in range(3)]
            await database.run(append_items, "s", items, run_id=str(writer))

    await asyncio.gather(*(write(writer) for writer in range(8)))
    items = await database.run(read_items, "s")

    assert await database.run(positions, "s") == list(range(1, 121))
    for writer in range(8):
        assert [item["n"] for item in items if item["writer"] == writer] == list(range(15))
    batches = [items[start : start + 3] for start in range(0, 120, 3)]
    assert all(len({item["writer"] for item in batch}) == 1 for batch in batches)


async def test_two_writers_that_pop_at_once_get_different_items(database: Database) -> None:
    await database.run(append_items, "s", numbered(8))
    popped = await asyncio.gather(*(database.run(pop_item, "s") for _ in range(8)))

    assert sorted(item["n"] for item in popped if item) == list(range(8))


def numbered(count: int) -> list[Mapping[str, Any]]:
    return [{"n": number} for number in range(count)]


def positions(connection: sa.Connection, session_id: str) -> list[int]:
    query = sa.select(session_items.c.position).where(session_items.c.session_id == session_id)
    return list(connection.execute(query.order_by(session_items.c.position)).scalars())
