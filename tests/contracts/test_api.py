"""The public names: each is there, says what it does, and there are no others. `test_api_text.py` holds their types."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
from agents import FunctionTool

import timestep

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", sorted(set(timestep.__all__) - {"__version__"}))
def test_a_public_name_says_what_it_does(name: str) -> None:
    value = getattr(timestep, name)
    text = value.description if isinstance(value, FunctionTool) else inspect.getdoc(value) or ""
    assert text.split("\n")[0].endswith((".", ":"))


def test_there_is_no_other_public_name() -> None:
    assert dir(timestep) == sorted(set(timestep.__all__))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = timestep.nonsense  # type: ignore[attr-defined]


def test_the_version_is_that_of_the_distribution() -> None:
    text = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    assert f'version = "{timestep.__version__}"' in text
