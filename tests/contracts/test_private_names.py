"""Where Timestep leans on private names of DBOS and of the Agents SDK: in the seams, which check them at import."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import timestep

PACKAGE = Path(timestep.__path__[0])
SEAMS = {
    "client/serializer.py",
    "durable/seams/agents_sdk.py",
    "durable/seams/agents_speed.py",
    "durable/seams/dbos_journal.py",
    "durable/seams/dbos_recovery.py",
    "durable/seams/dbos_sdk.py",
}


def test_only_the_seams_import_private_names_of_dbos_and_of_the_agents_sdk() -> None:
    modules = sorted(PACKAGE.rglob("*.py"))
    assert len(modules) > 50
    assert {str(path.relative_to(PACKAGE)) for path in modules if any(private_imports(path))} == SEAMS


def private_imports(path: Path) -> Iterator[str]:
    """Yield the imports of a module that name something private of DBOS or of the Agents SDK."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            package, *rest = name.split(".")
            if package in ("dbos", "agents") and any(is_private(part) for part in rest):
                yield name


def is_private(part: str) -> bool:
    return part == "run_internal" or (part.startswith("_") and not part.endswith("__"))
