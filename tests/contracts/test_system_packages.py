"""A test that needs a package which is not there: skipped on a machine of a person, and a failure in CI."""

from __future__ import annotations

from pathlib import Path

import pytest
from system_packages import packages, pytest_runtest_setup, require


@pytest.fixture
def needing(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.Item:
    """A test that needs `ip`, where no program is found."""
    monkeypatch.setenv("PATH", str(tmp_path))
    request.node.add_marker(pytest.mark.needs("ip"))
    return request.node


def test_what_needs_a_missing_program_is_skipped(needing: pytest.Item, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no ip: `make system` installs iproute2"):
        pytest_runtest_setup(needing)


def test_what_needs_a_missing_program_fails_in_ci(needing: pytest.Item, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="no ip: `make system` installs iproute2"):
        pytest_runtest_setup(needing)


@pytest.mark.parametrize("ci", ["true", ""])
def test_what_needs_a_program_that_is_there_runs(
    needing: pytest.Item, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ci: str
) -> None:
    monkeypatch.setenv("CI", ci)
    (tmp_path / "ip").touch(mode=0o755)
    pytest_runtest_setup(needing)


def test_a_program_that_is_not_on_the_list_is_a_mistake_of_the_test() -> None:
    assert "ip" in packages()
    with pytest.raises(KeyError):
        require("program-of-nobody")
