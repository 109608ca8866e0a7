"""What is built is what runs: the wheel and the sdist, installed outside the checkout, with what they ask for alone.

The dependencies are not installed a second time. Each environment is empty but for links to those packages of the
running environment that timestep's metadata names, and what those name: what is not declared is not found there.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PathDistribution, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

REPOSITORY = Path(__file__).resolve().parents[2]
BESIDE_THE_CODE = ["migrations", "workflows"]

QUICK_START = """
import asyncio
from agents import Agent
from agents.testing import ScriptedModel, assistant_message
from timestep import Session, run_agent_workflow

agent = Agent(name="assistant", model=ScriptedModel([[assistant_message("Work that survives.")]]))

async def main() -> None:
    result = await run_agent_workflow(agent, "What is durable execution?", Session("alice"), workflow_id="question-1")
    print(result.output)

asyncio.run(main())
"""

pytestmark = pytest.mark.slow

_OURS = ("TIMESTEP_", "PG", "DBOS_", "OPENAI_", "OLLAMA_", "PYTHON", "VIRTUAL_ENV")


@dataclass
class Installed:
    """An environment with timestep in it, and an empty folder to work in."""

    environment: Path
    folder: Path
    variables: dict[str, str]

    def call(self, program: str, *words: str) -> str:
        """Run a program of the environment and return what it printed."""
        return call(str(self.environment / "bin" / program), *words, folder=self.folder, variables=self.variables)


def call(*words: str, folder: Path, variables: dict[str, str] | None = None) -> str:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
    ended = subprocess.run(
        words, cwd=folder, env=kept | (variables or {}), capture_output=True, text=True, check=False, timeout=300
    )
    assert ended.returncode == 0, f"{words}\n{ended.stdout}\n{ended.stderr}"
    return ended.stdout


def tracked_files() -> list[Path]:
    """Return what the repository holds; outside of git, as in an unpacked sdist, all that is there."""
    if not (REPOSITORY / ".git").exists():
        return [path.relative_to(REPOSITORY) for path in REPOSITORY.rglob("*") if ".venv" not in path.parts]
    listed = call("git", "-c", "safe.directory=*", "ls-files", "-z", folder=REPOSITORY)
    return [Path(name) for name in listed.split("\0") if name]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the tracked files, which a build may write into."""
    copy = tmp_path_factory.mktemp("source")
    for name in tracked_files():
        if (REPOSITORY / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / name, copy / name)
    return copy


@pytest.fixture(scope="module")
def built(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the sdist, and the wheel that is built from the sdist."""
    folder = tmp_path_factory.mktemp("dist")
    call(sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(source), folder=source)
    return folder


def link_packages(folder: Path, *wanted: str) -> None:
    """Link the packages of the running environment that `wanted` names, and what these depend on."""
    folder.mkdir(exist_ok=True)
    waiting, seen = [Requirement(each) for each in wanted], set[str]()
    while waiting:
        requirement = waiting.pop()
        asked = f"{requirement.name.lower()}[{','.join(sorted(requirement.extras))}]"
        if asked in seen:
            continue
        seen.add(asked)
        found = distribution(requirement.name)
        for name in {path.parts[0] for path in found.files or []} - {"..", "__pycache__"}:
            link = folder / name
            if not link.exists():
                link.symlink_to(Path(str(found.locate_file(name))))
        waiting += requirements(list(found.requires or []), requirement.extras)


def requirements(texts: list[str], extras: set[str]) -> list[Requirement]:
    """Return those requirements that hold on this machine."""
    parsed = [Requirement(text) for text in texts]
    return [
        each
        for each in parsed
        if each.marker is None or any(each.marker.evaluate({"extra": extra}) for extra in ["", *extras])
    ]


def put_on_path(environment: Path, packages: Path) -> Path:
    [site_packages] = (environment / "lib").glob("python*/site-packages")
    path = site_packages / f"{packages.name}.pth"
    path.write_text(f"{packages}\n")
    return path


def with_pip(built: Path, folder: Path) -> Path:
    """Install the wheel with pip."""
    environment = folder / "environment"
    call(sys.executable, "-m", "venv", str(environment), folder=folder)
    [wheel] = built.glob("*.whl")
    pip = str(environment / "bin" / "pip")
    call(pip, "install", "--no-index", "--no-deps", "--disable-pip-version-check", str(wheel), folder=folder)
    return environment


def with_uv(built: Path, folder: Path) -> Path:
    """Install the sdist with uv, which builds it in the new environment."""
    environment = folder / "environment"
    uv = [sys.executable, "-m", "uv", "--offline", "--no-config"]
    call(*uv, "venv", "--python", sys.executable, str(environment), folder=folder)
    link_packages(folder / "builders", "hatchling")
    builders = put_on_path(environment, folder / "builders")
    [sdist] = built.glob("*.tar.gz")
    python = str(environment / "bin" / "python")
    install = ["pip", "install", "--python", python, "--no-deps", "--no-build-isolation", "--no-cache", str(sdist)]
    call(*uv, *install, folder=folder)
    builders.unlink()
    return environment


@pytest.fixture(scope="module", params=[with_pip, with_uv], ids=["wheel-with-pip", "sdist-with-uv"])
def installed(
    request: pytest.FixtureRequest, built: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installed]:
    folder = tmp_path_factory.mktemp("installed")
    environment = request.param(built, folder)
    [metadata] = (environment / "lib").glob("python*/site-packages/timestep-*.dist-info")
    asked = requirements(list(PathDistribution(metadata).requires or []), set())
    link_packages(folder / "packages", *(str(each) for each in asked))
    put_on_path(environment, folder / "packages")
    (folder / "empty").mkdir()
    variables = {
        "TIMESTEP_DATA_DIR": str(folder / "data"),
        "TIMESTEP_PROBE_LOCAL": "0",
        "OPENAI_AGENTS_DISABLE_TRACING": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    place = Installed(environment, folder / "empty", variables)
    yield place
    place.call("timestep", "db", "stop")


def test_the_wheel_holds_the_code_and_what_stands_beside_it(built: Path, source: Path) -> None:
    [wheel] = built.glob("*.whl")
    held = set(zipfile.ZipFile(wheel).namelist())
    wanted = {path.relative_to(source).as_posix() for path in (source / "timestep").rglob("*.py")}
    for folder in BESIDE_THE_CODE:
        wanted |= {
            f"timestep/_data/{path.relative_to(source).as_posix()}"
            for path in (source / folder).rglob("*")
            if path.is_file()
        }
    wanted |= {"timestep/_data/dbos-config.yaml"}
    assert "timestep/_data/migrations/versions/0001_core.py" in wanted
    assert wanted <= held
    assert {name.split("/")[0] for name in held if ".dist-info/" not in name} == {"timestep"}


def test_the_wheel_says_that_it_is_typed(built: Path) -> None:
    [wheel] = built.glob("*.whl")
    assert "timestep/py.typed" in zipfile.ZipFile(wheel).namelist()


def test_the_sdist_holds_what_the_repository_holds(built: Path, source: Path) -> None:
    [sdist] = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        held = {Path(*Path(name).parts[1:]) for name in archive.getnames()}
    kept_out = {path for path in tracked_files() if path.parts[0] in (".ci", ".github")}
    assert {path for path in tracked_files() if (source / path).is_file()} - kept_out - held == set()


@pytest.mark.long
def test_an_installed_timestep_migrates_answers_and_shows_its_demo(installed: Installed) -> None:
    where = installed.call("python", "-c", "import timestep; print(timestep.__path__[0])")
    assert Path(where.strip()).is_relative_to(installed.environment)

    installed.call("timestep", "db", "migrate")

    program = installed.folder.parent / "quick_start.py"
    program.write_text(QUICK_START)
    assert installed.call("python", str(program)) == "Work that survives.\n"

    shown = installed.call("timestep", "demo", "--kills", "1")
    assert "1 kill, and nothing that had finished was done again." in shown
    assert list(installed.folder.iterdir()) == []
