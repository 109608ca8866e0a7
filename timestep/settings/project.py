"""What the files of the project folder say: `dbos-config.yaml` and `pyproject.toml`."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from timestep.errors import SettingsError

CONFIG_FILE = "dbos-config.yaml"
CONFIG_SECTION = "timestep"
PROJECT_FILE = "pyproject.toml"


def current_folder() -> str:
    """Return the current folder, or the root when it was deleted."""
    try:
        return os.getcwd()
    except FileNotFoundError:
        return os.sep


def find_project(folder: Path) -> Path:
    """Return the nearest folder from `folder` upwards that has one of the two files, else `folder`."""
    for candidate in (folder, *folder.parents):
        if os.path.isfile(candidate / CONFIG_FILE) or os.path.isfile(candidate / PROJECT_FILE):
            return candidate
    return folder


def load_config(path: Path, environ: Mapping[str, str]) -> dict[str, Any]:
    """Return the contents of `dbos-config.yaml`, variables expanded; empty when there is no such file.

    Raises:
        SettingsError: it cannot be read or is not a mapping.
    """
    if not os.path.isfile(path):
        return {}
    import yaml

    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise SettingsError(f"{path} cannot be read: {error}", hint="Correct the YAML file.") from error
    section = loaded.get(CONFIG_SECTION) if isinstance(loaded, dict) else None
    if not isinstance(loaded, dict | None) or not isinstance(section, dict | None):
        raise SettingsError(
            f"{path} does not hold a mapping" + (f" at {CONFIG_SECTION!r}." if section else "."),
            hint=f"Write `name: my-app` and, below `{CONFIG_SECTION}:`, lines such as `  pool_size: 20`.",
        )
    return {str(key): _expanded(value, environ) for key, value in (loaded or {}).items()}


def load_project_name(path: Path) -> str | None:
    """Return `[project].name` of `pyproject.toml` in the letters that an application name may have, or None.

    Raises:
        SettingsError: the file cannot be read.
    """
    if not os.path.isfile(path):
        return None
    import tomllib

    try:
        name = tomllib.loads(path.read_text(encoding="utf-8")).get("project", {}).get("name")
    except (OSError, ValueError, AttributeError) as error:
        raise SettingsError(f"{path} cannot be read: {error}", hint="Correct the TOML file.") from error
    if not isinstance(name, str) or not name.strip():
        return None
    usable = re.sub(r"[^a-z0-9_-]+", "-", name.strip().lower()).strip("-")
    return usable if len(usable) >= 3 else f"{usable}-app".strip("-")


def _expanded(value: Any, environ: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _expanded(inner, environ) for key, inner in value.items()}
    if not isinstance(value, str):
        return value
    return re.sub(r"\$\{([^}:]+)(?::-([^}]*))?\}", lambda found: environ.get(found[1]) or found[2] or "", value).strip()
