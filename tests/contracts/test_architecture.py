"""ARCHITECTURE.md names what is there, and each folder says what belongs in it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import timestep

PACKAGE = Path(timestep.__path__[0])
REPOSITORY = PACKAGE.parent
PAGE = (REPOSITORY / "ARCHITECTURE.md").read_text(encoding="utf-8")
FOLDERS = [path.parent for path in sorted(PACKAGE.rglob("__init__.py")) if "_data" not in path.parts]
LONGEST_PAGE = 120

_ROOTS = REPOSITORY, PACKAGE, PACKAGE / "durable"
"""Where a path of the page may begin."""


def named_paths() -> list[str]:
    """Return the files and folders that the page names in code spans and in the picture of the house."""
    spans = [word for span in re.findall(r"`([^`\n]+)`", PAGE) for word in span.split()]
    picture = re.search(r"```\n(.*?)```", PAGE, re.DOTALL)
    assert picture is not None
    words = [*spans, *picture[1].split()]
    return sorted({word for word in words if re.fullmatch(r"[\w/.]+(\.py|\.md|\.toml|/)", word)})


@pytest.mark.parametrize("path", named_paths())
def test_what_the_page_names_is_there(path: str) -> None:
    folders = [*_ROOTS, *FOLDERS] if "/" not in path.rstrip("/") else _ROOTS
    assert any((folder / path).exists() for folder in folders)


def test_the_page_stays_a_page_and_says_where_to_make_twenty_changes() -> None:
    assert len(PAGE.splitlines()) <= LONGEST_PAGE
    table = PAGE.partition("## To change X, open Y")[2].partition("## ")[0]
    assert len([line for line in table.splitlines() if line.startswith("|")]) - 2 >= 20


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: str(folder.relative_to(REPOSITORY)))
def test_a_folder_says_what_belongs_there_and_what_does_not(folder: Path) -> None:
    text = ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))) or ""
    assert len(re.findall(r"[.:](?=\s|$)", text)) >= 2, "two sentences at least"
