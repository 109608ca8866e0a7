"""Settings that are written into a folder, and described there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from timestep.records import SettingValue
from timestep.settings import describe_settings


def describe(tmp_path: Path, environ: dict[str, str], **arguments: Any) -> dict[str, SettingValue]:
    environ = {"TIMESTEP_PROBE_LOCAL": "0"} | environ
    return {value.name: value for value in describe_settings(environ=environ, directory=tmp_path, **arguments)}


def write_config(folder: Path, text: str) -> None:
    (folder / "dbos-config.yaml").write_text(text)
