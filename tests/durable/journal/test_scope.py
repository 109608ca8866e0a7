"""Keys and step names of calls, whatever ids the provider gives them."""

from __future__ import annotations

import re
from typing import Any

from agents.testing import function_call
from hypothesis import example, given
from hypothesis import strategies as st

from timestep.durable.journal.scope import CallSlot, Scope, Segment

MARKS = st.text(st.sampled_from(":/#%~.+12a"), min_size=1, max_size=6)
CALL_IDS = st.lists(
    MARKS
    | st.text(st.characters() | st.characters(categories=["Cs"]), min_size=1)
    | MARKS.map(lambda mark: 100 * mark),
    min_size=1,
    max_size=5,
)
TURNS = st.lists(CALL_IDS, min_size=1, max_size=3)


class Counted(Scope):
    """A scope that draws its step ids without a workflow."""

    def reserve(self) -> Any:
        return object()


def scope(path: str = "", depth: int = 0) -> Counted:
    return Counted(segment=Segment(run_id="order-7", max_result_bytes=1), path=path, depth=depth)


def slots_of(turn: Scope, call_ids: list[str]) -> list[CallSlot]:
    """Plan a turn with these calls and take their slots in order."""
    turn.turn += 1
    turn.plan([function_call("look", {}, call_id=call_id) for call_id in call_ids], [])
    return [turn.slot_of(call_id, object()) for call_id in call_ids]


@given(TURNS, TURNS)
def test_no_two_calls_of_a_run_share_a_key_or_a_step_name(outer: list[list[str]], inner: list[list[str]]) -> None:
    top, keys, names = scope(), [], []
    for call_ids in outer:
        for slot in slots_of(top, call_ids):
            keys.append(top.call_key(slot))
            names.append(top.step_name("tool_call", "look", slot.key))
            below = top.below(slot)
            nested = scope(below.path, below.depth)
            for inner_ids in inner:
                for inner_slot in slots_of(nested, inner_ids):
                    keys.append(nested.call_key(inner_slot))
                    names.append(nested.step_name("tool_call", "look", inner_slot.key))

    assert len(keys) == len(set(keys))
    assert len(names) == len(set(names))


@given(CALL_IDS)
@example(["\ud800", "\x00", "x" * 10_000, "x" * 10_001])
def test_a_key_is_the_same_on_every_attempt_printable_and_short(call_ids: list[str]) -> None:
    first, second = ([slot.key for slot in slots_of(scope(), call_ids)] for _ in range(2))

    assert first == second
    assert all(re.fullmatch(r"[\x21-\x7e]{1,150}", key) for key in first)


@given(st.from_regex(r"[A-Za-z0-9_.-]{1,60}", fullmatch=True))
def test_an_ordinary_id_is_readable_in_the_key(call_id: str) -> None:
    [slot] = slots_of(scope(), [call_id])

    assert scope().call_key(slot) == f"0:{call_id}"


@given(CALL_IDS, st.randoms(use_true_random=False))
def test_the_keys_do_not_depend_on_which_call_begins_first(call_ids: list[str], order: Any) -> None:
    expected = sorted(slot.key for slot in slots_of(scope(), call_ids))
    turn = scope()
    turn.turn = 1
    turn.plan([function_call("look", {}, call_id=call_id) for call_id in call_ids], [])
    shuffled = list(call_ids)
    order.shuffle(shuffled)

    assert sorted(turn.slot_of(call_id, object()).key for call_id in shuffled) == expected


def test_the_same_call_gets_the_same_slot_again() -> None:
    turn, owner = scope(), object()
    turn.plan([function_call("look", {}, call_id="c1"), function_call("look", {}, call_id="c1")], [])

    assert turn.slot_of("c1", owner) is turn.slot_of("c1", owner)
    assert turn.slot_of("c1", object()) is not turn.slot_of("c1", owner)
