"""Functions and modules stay small enough to be read at one sitting."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import timestep

REPOSITORY = Path(timestep.__path__[0]).parent
MAX_FUNCTION_LINES = 60
"""Lines of a function's body, without its signature and its docstring."""

MAX_MODULE_LINES = 450
LONG_MODULES = {"timestep/store/tables.py"}
"""All tables of the schema, one after the other."""


def modules() -> list[Path]:
    return [path for folder in ("timestep", "workflows") for path in sorted((REPOSITORY / folder).rglob("*.py"))]


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def functions(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield f"{path.relative_to(REPOSITORY)}:{node.lineno} {node.name}", body_lines(node)


def test_no_function_is_too_long() -> None:
    found = dict(each for path in modules() for each in functions(path))
    assert len(found) > 1000
    assert {name: lines for name, lines in found.items() if lines > MAX_FUNCTION_LINES} == {}


def test_no_module_is_too_long() -> None:
    lines = {str(path.relative_to(REPOSITORY)): len(path.read_text().splitlines()) for path in modules()}
    assert {name for name, count in lines.items() if count > MAX_MODULE_LINES} == LONG_MODULES
