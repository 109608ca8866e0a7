"""The files of a project that hold settings: dbos-config.yaml and pyproject.toml."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from written_settings import describe, write_config

from timestep.errors import SettingsError
from timestep.settings import (
    Settings,
)

URL = "postgresql://ann:secret@db.example:5433/shop"
OTHER = "postgresql://ann:secret@db.example:5433/other"

Resolve = Callable[..., Settings]


@pytest.mark.parametrize(
    ("written", "name"),
    [("shop", "shop"), ("My.Shop_2", "my-shop_2"), ("ab", "ab-app"), ("...", "app")],
)
def test_the_name_comes_from_pyproject_of_a_folder_above(
    resolve: Resolve, tmp_path: Path, written: str, name: str
) -> None:
    (tmp_path / "pyproject.toml").write_text(f"[project]\nname = '{written}'\n")
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    assert resolve(directory=inner).name == name


def test_the_name_in_dbos_config_beats_pyproject(resolve: Resolve, tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'shop'\n")
    write_config(tmp_path, "name: store")
    assert resolve().name == "store"


def test_a_pyproject_without_a_name_gives_none(resolve: Resolve, tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.ruff]\n")
    assert resolve().name == "timestep"


@pytest.mark.parametrize(
    ("written", "environ", "expected"),
    [
        ("${MY_URL}", {"MY_URL": URL}, URL),
        ("${MY_URL}", {}, None),
        ("${MY_URL}", {"MY_URL": ""}, None),
        (f"${{MY_URL:-{URL}}}", {}, URL),
        (f"${{MY_URL:-{URL}}}", {"MY_URL": OTHER}, OTHER),
        ("postgresql://${WHO}:${WORD}@h/d", {"WHO": "ann", "WORD": "a#b: c"}, "postgresql://ann:a#b: c@h/d"),
        ("", {}, None),
    ],
)
def test_variables_in_dbos_config_are_expanded_and_empty_means_absent(
    resolve: Resolve, tmp_path: Path, written: str, environ: dict[str, str], expected: str | None
) -> None:
    write_config(tmp_path, f"system_database_url: {written}")
    assert resolve(environ).database_url == expected


@pytest.mark.parametrize("text", ["- a list", "timestep: [1]", "timestep: text", "a: [", "just words", "\x01"])
def test_a_dbos_config_that_cannot_be_used_is_named(resolve: Resolve, tmp_path: Path, text: str) -> None:
    write_config(tmp_path, text)
    with pytest.raises(SettingsError, match=r"dbos-config\.yaml"):
        resolve()
    described = describe(tmp_path, {"TIMESTEP_POOL_SIZE": "7"})
    assert "dbos-config.yaml" in (described["dbos-config.yaml"].problem or "")
    assert described["TIMESTEP_POOL_SIZE"].value == "7"


def test_a_pyproject_that_cannot_be_used_is_named(resolve: Resolve, tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[project\n")
    with pytest.raises(SettingsError, match=r"pyproject\.toml"):
        resolve()
