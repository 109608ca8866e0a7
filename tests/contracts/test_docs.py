"""The README and the pages of docs/: what they show runs or is there, and their links lead somewhere.

A `python` block after `<!-- run -->` runs as it stands, without a key. So does the README's first one, whose model is
answered on loopback. Other `python` blocks are parts of programs: they are parsed, and what they take from `timestep`
must be there. `console` blocks and inline commands must name commands and options that there are.
"""

from __future__ import annotations

import ast
import inspect
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from answering_server import answering_server

import timestep
from timestep import cli
from timestep.embedded_postgres import EmbeddedPostgres

REPOSITORY = Path(__file__).resolve().parents[2]
README = REPOSITORY / "README.md"
PAGES = [README, REPOSITORY / "ARCHITECTURE.md", REPOSITORY / "CHANGELOG.md", *sorted(REPOSITORY.glob("docs/**/*.md"))]
BLOCK = re.compile(r"^(<!-- run -->\n)?```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
COMMAND = re.compile(r"`((?:timestep|make) [a-z][^`\n]*)`")
SHOWN_COMMAND = re.compile(r"^(?:\$ )?((?:timestep|make) .*)$", re.MULTILINE)
COMING = ("timestep sessions", "timestep init")
"""Commands that messages or the design name and that are not there yet."""

_OURS = ("TIMESTEP_", "PG", "DBOS_", "OPENAI_", "OLLAMA_")


def name_of(page: Path) -> str:
    return str(page.relative_to(REPOSITORY))


def blocks(page: Path, language: str) -> list[tuple[bool, str]]:
    """Return whether it is marked, and the text, of each block of a language."""
    found = BLOCK.findall(page.read_text(encoding="utf-8"))
    return [(bool(mark), text) for mark, kind, text in found if kind == language]


PROGRAMS = [
    pytest.param(text, id=f"{name_of(page)}-{number}")
    for page in PAGES
    for number, (is_marked, text) in enumerate(blocks(page, "python"), start=1)
    if is_marked or (page == README and number == 1)
]
FRAGMENTS = [
    pytest.param(text, id=f"{name_of(page)}-{number}")
    for page in PAGES
    for number, (_, text) in enumerate(blocks(page, "python"), start=1)
]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A model on loopback, and a server that outlives each program."""
    folder = tmp_path_factory.mktemp("docs")
    server = EmbeddedPostgres(folder / "postgres" / "18")
    server.ensure()
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
    with answering_server() as url:
        yield kept | {
            "TIMESTEP_PROBE_LOCAL": "0",
            "TIMESTEP_DATA_DIR": str(folder),
            "OPENAI_API_KEY": "a-key-for-loopback",
            "OPENAI_BASE_URL": url,
            "OPENAI_AGENTS_DISABLE_TRACING": "1",
        }
    server.release()
    server.stop()


def run(program: str, folder: Path, environment: dict[str, str]) -> str:
    """Run a program as a file of an empty folder and return what it printed."""
    (folder / "app.py").write_text(program, encoding="utf-8")
    ended = subprocess.run(
        [sys.executable, "-W", "error", "app.py"], cwd=folder, env=environment, capture_output=True, text=True,
        check=False, timeout=180,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "Traceback" not in ended.stderr, ended.stderr
    return ended.stdout


@pytest.mark.slow
@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_of_a_page_runs_and_its_second_start_prints_the_same_last_line(
    program: str, environment: dict[str, str], tmp_path: Path
) -> None:
    variables = environment | {"TIMESTEP_APP_NAME": re.sub(r"[^a-z0-9]", "", tmp_path.name.lower())[-40:]}
    nowhere = variables | {"OPENAI_BASE_URL": "http://127.0.0.1:9/v1"}
    first, second = run(program, tmp_path, variables), run(program, tmp_path, nowhere)
    assert first.strip()
    assert first.splitlines()[-1] == second.splitlines()[-1]


@pytest.mark.parametrize("text", FRAGMENTS)
def test_the_code_of_a_page_fits_the_public_names_and_parameters(text: str) -> None:
    tree = ast.parse("async def page():\n" + textwrap.indent(text, "    "))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "timestep":
            assert {alias.name for alias in node.names} <= set(timestep.__all__)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in timestep.__all__:
            known = inspect.signature(getattr(timestep, node.func.id)).parameters
            assert {keyword.arg for keyword in node.keywords} <= set(known), ast.unparse(node)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_leads_somewhere(page: Path) -> None:
    prose = BLOCK.sub("", page.read_text(encoding="utf-8"))
    for link in re.findall(r"\]\(([^)]+)\)", prose):
        target, _, anchor = link.partition("#")
        if target.startswith(("http://", "https://")):
            continue
        file = (page.parent / target).resolve() if target else page
        assert file.exists(), f"{name_of(page)} links to {link}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in [re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_command_that_a_page_names_is_there(page: Path) -> None:
    targets = re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    commands = COMMAND.findall(page.read_text(encoding="utf-8"))
    for _, text in blocks(page, "console"):
        commands += SHOWN_COMMAND.findall(text)
    for command in commands:
        words = command.split("#")[0].split()
        if words[0] == "make":
            assert words[1] in targets, command
        elif not command.startswith(COMING):
            check_command(words[1:], command)


def check_command(words: list[str], shown: str) -> None:
    """Assert that the words name a command and options that it has."""
    found: click.Command = cli.command
    context = click.Context(found, info_name="timestep")
    while isinstance(found, click.Group) and words and not words[0].startswith("-"):
        inner = found.get_command(context, words.pop(0))
        assert inner is not None, f"no such command: {shown}"
        found = inner
    if found.name != "psql":  # the rest is psql's own
        options = {word.split("=")[0] for word in words if word.startswith("--")}
        assert options <= {name for parameter in found.get_params(context) for name in parameter.opts}, shown


def test_every_page_of_docs_is_linked_from_its_index() -> None:
    docs = REPOSITORY / "docs"
    index = (docs / "README.md").read_text(encoding="utf-8")
    missing = [name for page in docs.rglob("*.md") if f"({(name := str(page.relative_to(docs)))})" not in index]
    assert [name for name in missing if name != "README.md" and not name.startswith("decisions/")] == []


@pytest.mark.parametrize("page", sorted(REPOSITORY.glob("docs/how-to/*.md")), ids=name_of)
def test_a_feature_page_says_what_happens_on_crash_retry_and_code_change(page: Path) -> None:
    text = page.read_text(encoding="utf-8").lower()
    assert all(word in text for word in ("crash", "retry", "code change"))


def test_the_reference_pages_are_those_that_the_code_makes() -> None:
    ended = subprocess.run(
        [sys.executable, str(REPOSITORY / "docs" / "generate_reference.py"), "--check"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
