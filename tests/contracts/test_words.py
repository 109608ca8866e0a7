"""Every stored word is written once, in `timestep/words.py`, and what the code does with the words agrees with it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, get_args

import agents.exceptions
import pytest

import timestep
from timestep import errors, words
from timestep.store.migrations import migrations_directory

PACKAGE = Path(timestep.__path__[0])
WORDS = (
    {each.word for each in (*words.REASONS, *words.STEP_KINDS, *words.EVENT_TYPES)}
    | words.LOCAL_CALLS
    | words.CALL_RESULTS
) - set(words.RUN_STATUSES)  # `cancelled` is a status too

FIELDS = {"step", "limit", "timeout", "tool_call"}
"""Words that are also names of fields: as a key of an object, or what is looked up in one, they mean the field."""

OTHER_MEANINGS = {
    "__init__.py": {"gather_runs", "wait_run"},  # public functions
    "cli/approvals.py": {"approval", "limit"},  # labels that are printed
    "cli/demo/scenario.py": {"handoff"},  # lines of the demo's own log
    "cli/demo/screen.py": {"handoff", "step"},
    "client/events.py": {"step"},  # a field of the events
    "client/trace.py": {"step"},  # a node of the trace
    "durable/seams/agents_sdk.py": {"tool_call", "timeout"},  # parameters of the SDK's functions
    "durable/seams/tool_outputs.py": {"tool_call"},
    "durable/seams/dbos_speed.py": {"step"},  # a type of operation of DBOS
    "ids.py": {"copy"},  # the end of an id of a workflow
    "store/tables.py": {"step"},  # a column
}
"""Where a word means something else, by file."""


def test_no_word_is_written_anywhere_else_in_code() -> None:
    modules = [path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "words.py"]
    assert len(modules) > 100
    found = {
        name: written - OTHER_MEANINGS.get(name, set())
        for path in modules
        if (written := words_in_code(path.read_text("utf-8"))) and (name := str(path.relative_to(PACKAGE)))
    }
    assert {name: written for name, written in found.items() if written} == {}


def test_no_exception_of_the_rule_is_left_over() -> None:
    for name, expected in OTHER_MEANINGS.items():
        assert expected <= words_in_code((PACKAGE / name).read_text("utf-8")), name


def test_no_word_is_written_anywhere_else_in_sql() -> None:
    functions = newest_sql_functions()
    assert {"decide", "words", "enqueue_segment", "advance_session"} <= set(functions)
    written = {name: quoted_words(text) for name, text in functions.items() if name != "words"}
    assert {name: found for name, found in written.items() if found} == {}


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ('status = "limit_reached"', {"limit_reached"}),
        ('f"{path}input_guardrail:{number}"', {"input_guardrail"}),
        ('name.startswith("tool_call:1:")', {"tool_call"}),
        ("query = \"select 1 from runs where reason = 'history_changed'\"", {"history_changed"}),
        ('kinds = {"approval": 1, "limit": 2}', {"approval"}),
        ('event = {"type": "restarted", "step": name}', {"restarted"}),
        ('match kind:\n    case "function_call":\n        pass', {"function_call"}),
        ('step = f"{name}:refused:{number}"', {":refused:"}),
        ('details.get("limit"), row["step"], f(timeout=1)', set[str]()),
        ('def f():\n    """function_call"""', set[str]()),
        ('__all__ = ["wait_run"]', set[str]()),
    ],
)
def test_the_rule_finds_what_is_a_word(code: str, found: set[str]) -> None:
    assert words_in_code(code) == found


def test_every_error_of_the_sdk_keeps_its_reason() -> None:
    kinds = [each for each in vars(agents.exceptions).values() if is_error(each, agents.exceptions.AgentsException)]
    assert len(kinds) > 8
    today = {kind.__name__: words.reason_of(kind.__new__(kind)) for kind in kinds}
    assert words.EXCEPTION not in today.values()
    assert {re.sub("_", "", reason) for reason in today.values()} == {name.lower() for name in today}


def test_the_errors_of_reasons_and_failures_are_there() -> None:
    for name in (error for reason in words.REASONS for error in reason.errors):
        module, _, kind = name.rpartition(".")
        assert is_error(getattr(import_module(module), kind), Exception), name
    failures = [each.failure for each in words.KINDS_OF_APPROVAL if each.failure is not None]
    for failure in (words.EXPIRY, *failures):
        kind = getattr(errors, failure.error)
        assert words.reason_of(kind()) == failure.to_json()["reason"]


def test_the_reason_of_an_error_never_comes_from_its_class_name() -> None:
    class LimitReachedError(Exception):
        pass

    class MyModelBehaviorError(agents.exceptions.ModelBehaviorError):
        pass

    for error in (ValueError("v"), LimitReachedError(), MyModelBehaviorError("m"), errors.RunNotFoundError()):
        assert words.reason_of(error) == "exception"
    assert words.reason_of(errors.LimitReachedError()) == "limit_reached"
    assert words.reason_of(errors.OutcomeUnknownError()) == "outcome_unknown"
    assert words.reason_of(errors.ApprovalExpiredError()) == "approval_expired"
    assert words.reason_of(errors.SnapshotMismatchError()) == "snapshot_mismatch_error"
    assert words.reason_of(agents.exceptions.MaxTurnsExceeded("m")) == "max_turns_exceeded"


@pytest.mark.parametrize(
    ("stored", "kind", "read"),
    [
        (None, None, None),
        ("limit_reached", "LimitReachedError", "limit_reached"),
        ("limit_reached_error", "LimitReachedError", "limit_reached"),
        ("outcome_unknown_error", "OutcomeUnknownError", "outcome_unknown"),
        ("m_c_p_tool_cancellation_error", "MCPToolCancellationError", "mcp_tool_cancellation_error"),
        ("value_error", "ValueError", "exception"),
        ("run_not_found_error", "RunNotFoundError", "exception"),
        ("a_word_of_tomorrow", "ValueError", "a_word_of_tomorrow"),
        ("a_word_of_tomorrow", None, "a_word_of_tomorrow"),
    ],
)
def test_words_of_other_releases_are_read(stored: str | None, kind: str | None, read: str | None) -> None:
    assert words.read_reason(stored, None if kind is None else {"type": kind}) == read


def test_a_kind_of_another_release_is_shown_as_an_approval() -> None:
    tomorrow: Any = "a_kind_of_tomorrow"
    assert words.kind_of_approval(tomorrow) == words.kind_of_approval("approval")


def test_each_word_is_there_once() -> None:
    for table in (words.REASONS, words.KINDS_OF_APPROVAL, words.STEP_KINDS, words.EVENT_TYPES, words.CALL_TYPES):
        names = [each.word for each in table]
        assert len(names) == len(set(names))
    formerly = [each.formerly for each in words.REASONS if each.formerly is not None]
    assert not {each.word for each in words.REASONS} & set(formerly)
    assert len(formerly) == len(set(formerly))
    assert tuple(each.word for each in words.KINDS_OF_APPROVAL) == get_args(words.ApprovalKind)
    assert {each.reason for each in words.KINDS_OF_APPROVAL} <= {each.word for each in words.REASONS}


def test_events_are_written_with_the_fields_that_they_have() -> None:
    written: dict[str, set[frozenset[str]]] = {}
    for path in (PACKAGE / "durable").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            fields = dict_fields(node)
            if "type" in fields and isinstance(fields["type"], ast.Name) and fields["type"].id.isupper():
                word = getattr(words, fields.pop("type").id)
                written.setdefault(word, set()).add(frozenset(fields))
    expected = {each.word: {frozenset(each.fields)} for each in words.EVENT_TYPES if each.source == "step"}
    assert written == expected


def test_steps_are_named_by_their_patterns() -> None:
    patterns = {each.word: each.pattern.count(":<") - 1 for each in words.STEP_KINDS}  # the turn is always there
    named: set[str] = set()
    for path in (PACKAGE / "durable").rglob("*.py"):
        tree = ast.parse(path.read_text("utf-8"))
        for call in ast.walk(tree):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "step_name":
                kind, *parts = call.args
                assert isinstance(kind, ast.Name), ast.unparse(call)
                for word in words_named(kind.id, tree):
                    assert len(parts) == patterns[word], ast.unparse(call)
                    named.add(word)
    assert named == {each.word for each in words.STEP_KINDS if ":<turn>" in each.pattern}


def words_named(name: str, tree: ast.Module) -> set[str]:
    """Return the words of a constant; of the first parameter of a function those of the constants that it is given."""
    if name.isupper():
        return {getattr(words, name)}
    functions = {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.AsyncFunctionDef) and node.args.args and node.args.args[0].arg == name
    }
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    given = [call.args[0] for call in calls if call.func.id in functions]  # type: ignore[union-attr]
    return {getattr(words, each.id) for each in given if isinstance(each, ast.Name)}


def words_in_code(code: str) -> set[str]:
    """Return the words that stand in code as literals, alone, at the beginning of a step's name, or quoted in SQL."""
    tree = ast.parse(code)
    skipped = {id(node) for node in names_of_something(tree)}
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(text := node.value, str) and id(node) not in skipped:
            found |= {word for word in WORDS if word == text or re.search(rf"(^|/){word}:", text)}
            found |= quoted_words(text)
            if words.REFUSED in text:
                found.add(words.REFUSED)
    return found


def quoted_words(text: str) -> set[str]:
    return {word for word in re.findall(r"'(\w+)'", text) if word in WORDS}


def names_of_something(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield docstrings, names in `__all__`, and what names a field of an object."""
    for node in ast.walk(tree):
        named: Sequence[ast.expr | None] = ()
        match node:
            case ast.Expr(value=ast.Constant() as text):
                yield text
            case ast.Assign(targets=[ast.Name(id="__all__")], value=ast.List() as listed):
                yield from listed.elts
            case ast.Dict():
                named = node.keys
            case ast.Subscript():
                named = [node.slice]
            case ast.Call(func=ast.Attribute(attr="get")):
                named = node.args[:1]
            case ast.Call(func=ast.Name(id="getattr")):
                named = node.args[1:2]
            case _:
                pass
        yield from (each for each in named if isinstance(each, ast.Constant) and each.value in FIELDS)


def newest_sql_functions() -> dict[str, str]:
    """Return the SQL of each function of the schema as the newest migration that makes it has it."""
    functions: dict[str, str] = {}
    for path in sorted((migrations_directory() / "versions").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                made = re.match(r"\s*create (?:or replace )?function timestep\.(\w+)\(", node.value)
                if made is not None:
                    functions[made[1]] = node.value
    return functions


def dict_fields(node: ast.AST) -> dict[str, Any]:
    if not isinstance(node, ast.Dict):
        return {}
    pairs = zip(node.keys, node.values, strict=True)
    return {key.value: value for key, value in pairs if isinstance(key, ast.Constant) and isinstance(key.value, str)}


def is_error(kind: object, base: type[Exception]) -> bool:
    return isinstance(kind, type) and issubclass(kind, base)
