"""The test of a module is found by its name.

`timestep/client/events.py` is tested in `tests/client/test_events.py`, or in several files `test_events_<what>.py`
there; a module of the ground, such as `timestep/words.py`, also in `tests/contracts/`. Where what a module does shows
in the tests of another one alone, the table below says in which.
"""

from __future__ import annotations

from pathlib import Path

import pytest

import timestep

PACKAGE = Path(timestep.__path__[0])
TESTS = Path(__file__).parents[1]

SUITES = {"contracts", "examples", "fixtures", "real_model", "recovery", "servers"}
"""Folders that mirror none: what holds for the whole project, over several processes, and what tests need."""

ELSEWHERE = {
    "cli/assistant": "cli/test_models",
    "cli/connect": "cli/test_runs",
    "cli/processes": "cli/test_worker",
    "cli/quiet": "cli/test_run",
    "cli/runs/asked": "cli/test_approvals",
    "cli/runs/decide": "cli/test_approvals",
    "cli/runs/ending": "cli/test_run",
    "client/asked": "cli/test_approvals",
    "client/class_names": "durable/journal/test_values",
    "client/connector": "client/test_client",
    "client/database": "cli/test_db",
    "client/readable": "durable/journal/test_values_in_runs",
    "client/requests": "durable/segment/test_request",
    "client/runs": "recovery/test_cancel_timeout",
    "durable/journal/context_step": "durable/journal/test_context_changes",
    "durable/journal/halt": "durable/steps/test_unknown_outcome",
    "durable/process/agent_definition": "durable/test_start",
    "durable/process/closed_workflows": "durable/segment/test_close",
    "durable/process/ended_runs": "durable/test_gather",
    "durable/process/engine": "runtime/test_launch",
    "durable/process/kept_types": "durable/journal/test_values_not_kept",
    "durable/process/registered_agents": "durable/test_start",
    "durable/process/running_steps": "recovery/test_cancel_timeout",
    "durable/process/segment_place": "durable/process/test_home_loop",
    "durable/process/threads": "runtime/test_launch",
    "durable/process/tool_policies": "durable/steps/test_unknown_outcome",
    "durable/seams/agents_sdk": "contracts/test_private_names",
    "durable/seams/agents_speed": "contracts/test_private_names",
    "durable/seams/dbos_journal": "durable/test_without_short_ways",
    "durable/seams/dbos_recovery": "recovery/test_takeover",
    "durable/seams/dbos_speed": "durable/test_without_short_ways",
    "durable/seams/release_check": "contracts/test_private_names",
    "durable/seams/run_state": "durable/states/test_resume",
    "durable/seams/sdk_calls": "durable/journal/test_scope",
    "durable/seams/tool_outputs": "durable/journal/test_values_in_runs",
    "durable/segment/outcome": "durable/segment/test_close",
    "durable/segment/runner": "durable/test_conversation",
    "durable/segment/session": "durable/test_conversation",
    "durable/segment/workflow": "durable/test_start",
    "durable/states/context": "durable/states/test_saved_context",
    "durable/states/origin": "durable/states/test_resume",
    "durable/states/output": "durable/test_result",
    "durable/states/state_json": "durable/states/test_contexts_come_back",
    "durable/states/tool_lists": "durable/steps/test_mcp",
    "durable/steps/tool_result": "durable/steps/test_tool_call_values",
    "home_loop": "durable/process/test_home_loop",
    "ids": "durable/segment/test_request",
    "inputs": "durable/segment/test_request",
    "models/checks": "cli/test_models",
    "models/clients": "models/test_ollama_provider",
    "models/listing": "cli/test_models",
    "models/ollama_call": "models/test_ollama_model",
    "models/ollama_stream": "models/test_from_ollama",
    "run_state/reading": "run_state/test_state_file",
    "runtime/executor": "recovery/test_takeover",
    "runtime/versions": "recovery/test_versions",
    "store/json_text": "store/test_sessions",
    "store/process_database": "client/test_sessions",
    "store/queues": "client/test_queues",
    "store/run_states": "durable/test_run_state_store",
    "store/runs": "store/test_plans",
    "store/segments": "durable/segment/test_close",
    "store/stream_segments": "client/test_events",
    "store/tables": "store/test_migrations",
    "tools/ask_user": "durable/test_interruptions",
    **{
        f"cli/demo/{name}": "cli/test_demo"
        for name in ("child", "local_model", "models", "proof", "scenario", "screen", "side_log")
    },
    **{
        f"durable/values/{name}": "durable/journal/test_values_come_back"
        for name in ("annotations", "keeping", "registered_types", "scalars", "structure", "type_references")
    },
}
"""Modules without a file of their name, and the test that shows what they do."""

WITHOUT = {"records": "fields without code; each is read by tests of those that make it"}
"""Modules that need no test, and why."""

MODULES = sorted(
    path.relative_to(PACKAGE).with_suffix("").as_posix()
    for path in PACKAGE.rglob("*.py")
    if not path.name.startswith("__") and "_data" not in path.parts
)


def own_tests(module: str) -> list[Path]:
    """Return the files that the name of a module leads to."""
    folder, _, name = module.rpartition("/")
    folders = [TESTS / folder] if folder else [TESTS, TESTS / "contracts"]
    return [path for place in folders for path in (*place.glob(f"test_{name}.py"), *place.glob(f"test_{name}_*.py"))]


def missing(modules: list[str]) -> list[str]:
    """Return the modules whose test is found neither by their name nor in the table."""
    return [
        module
        for module in modules
        if not own_tests(module)
        and module not in WITHOUT
        and not (TESTS / f"{ELSEWHERE.get(module, 'nowhere')}.py").exists()
    ]


def test_every_module_has_a_test_that_is_found_by_its_name() -> None:
    assert not missing(MODULES), "give it a test file of its name, or say in ELSEWHERE where it is tested"


def test_a_module_without_a_test_is_noticed() -> None:
    assert missing(["client/events", "client/nobody", "client/runs"]) == ["client/nobody"]


@pytest.mark.parametrize("table", [ELSEWHERE, WITHOUT], ids=["ELSEWHERE", "WITHOUT"])
def test_the_tables_hold_what_is_there_and_has_no_test_of_its_name(table: dict[str, str]) -> None:
    assert [module for module in table if module not in MODULES or own_tests(module)] == []


def test_every_folder_of_tests_mirrors_one_of_the_package_or_is_a_suite() -> None:
    folders = {path.parent.relative_to(TESTS) for path in TESTS.rglob("test_*.py") if "node_modules" not in path.parts}
    assert [str(each) for each in folders if each.parts[:1] and each.parts[0] not in SUITES
            and not (PACKAGE / each).is_dir()] == []  # fmt: skip
