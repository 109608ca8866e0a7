"""Settings that are resolved in an empty folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from timestep.settings import Settings, resolve_settings

Resolve = Callable[..., Settings]


@pytest.fixture
def resolve(tmp_path: Path) -> Resolve:
    """Resolve in an empty folder with an environment of the test's own, without asking port 5432."""

    def call(environ: dict[str, str] | None = None, **arguments: Any) -> Settings:
        arguments.setdefault("directory", tmp_path)
        return resolve_settings(environ={"TIMESTEP_PROBE_LOCAL": "0"} | (environ or {}), **arguments)

    return call
