"""Which question is meant: a person types ids or prefixes of them, a program gives whole ids."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import event
from stored_runs import close_run

from timestep.client.approvals import approval, decide, find_asked
from timestep.client.connector import Connector
from timestep.client.decide import approve
from timestep.embedded_postgres import EmbeddedPostgres
from timestep.errors import AmbiguousCallError, ApprovalNotFoundError, RunNotFoundError
from timestep.records import Approval
from timestep.store.connection import open_database
from timestep.words import ApprovalKind

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def connector(server: EmbeddedPostgres, new_database: Callable[[], str]) -> Iterator[Connector]:
    """The way to a migrated database where nothing is launched."""
    database = open_database(server.url(new_database()), application="test")
    connector = Connector(database, application="test")
    yield connector
    connector.close()
    database.close()


def waiting(connector: Connector, *kinds: ApprovalKind) -> str:
    """Store a run that waits for these decisions, with the ids `<run>.0` and so on, and return its id."""
    run_id = f"{next(_numbers)}-order-43"
    asked = [
        Approval(
            id=f"{run_id}.{place}", run_id=run_id, segment=1, place=place, kind=kind, session_id=None, agent="clerk",
            tool="refund", call_id=f"call_{place}", arguments="{}", arguments_digest="d",
            details={"question": "Which?", "choices": None},
        )
        for place, kind in enumerate(kinds)
    ]  # fmt: skip
    close_run(connector.database, run_id, agent="clerk", approvals=asked)
    return run_id


@pytest.mark.parametrize(
    ("cut", "call_id"), [("", "call_1"), ("-43", "call_1"), (".1", None)], ids=["run", "prefix_of_a_run", "approval"]
)
def test_a_question_is_found_by_its_own_id_or_by_its_run_and_call(
    connector: Connector, cut: str, call_id: str | None
) -> None:
    run_id = waiting(connector, "approval", "approval")
    typed = run_id.removesuffix(cut) if cut.startswith("-") else run_id + cut
    assert find_asked(connector, typed, call_id).id == f"{run_id}.1"


def test_a_prefix_names_an_approval_when_no_other_id_begins_so(connector: Connector) -> None:
    run_id = waiting(connector, "approval")
    assert find_asked(connector, f"{run_id}.").id == f"{run_id}.0"
    with pytest.raises(ApprovalNotFoundError, match=f"'{run_id[:-1]}': {run_id}.0, run {run_id}"):
        find_asked(connector, run_id[:-1])
    for typed in (f"{run_id}_", f"{run_id}%", "%"):  # no patterns of SQL
        with pytest.raises(ApprovalNotFoundError, match="There is no approval or run"):
            find_asked(connector, typed)


def test_of_several_questions_the_one_of_the_kind_is_meant(connector: Connector) -> None:
    run_id = waiting(connector, "approval", "question")
    assert find_asked(connector, run_id, kinds=("question",)).id == f"{run_id}.1"
    assert find_asked(connector, run_id, kinds=("limit",)).id == f"{run_id}.0"  # its own verb is then said
    with pytest.raises(AmbiguousCallError, match=rf"{run_id}.0 an approval of refund\(\{{\}}\); {run_id}.1 an answer"):
        find_asked(connector, run_id)


def test_what_is_typed_is_found_and_decided_in_four_statements(connector: Connector) -> None:
    run_id = waiting(connector, "approval")
    statements: list[str] = []

    def note(_: Any, __: Any, statement: str, *___: Any) -> None:
        statements.append(statement)

    event.listen(connector.database.engine, "before_cursor_execute", note)
    try:
        decide(connector, find_asked(connector, f"{run_id}."), approval(by="ann"))
    finally:
        event.remove(connector.database.engine, "before_cursor_execute", note)
    assert len(statements) == 4, statements


async def test_a_program_gives_whole_ids_and_decides_only_what_its_verb_is_for(connector: Connector) -> None:
    run_id = waiting(connector, "question")
    with pytest.raises(RunNotFoundError):
        await approve(run_id[:-1], by="ann", database=connector.database)
    with pytest.raises(ApprovalNotFoundError, match="has no approval"):
        await approve(run_id, approval_id=f"{run_id}.", by="ann", database=connector.database)
    with pytest.raises(ApprovalNotFoundError, match="no decision of that kind, but for an answer: Which"):
        await approve(run_id, by="ann", database=connector.database)
    assert find_asked(connector, run_id).status == "open"
