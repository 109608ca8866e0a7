"""Which snapshots this process can read."""

from __future__ import annotations

from agents.run_state import SUPPORTED_SCHEMA_VERSIONS
from agents.version import __version__ as sdk_version

from timestep.errors import UnsupportedError
from timestep.run_state.envelope import Snapshot


def check_readable(snapshot: Snapshot) -> Snapshot:
    """Return `snapshot` unchanged when the installed Agents SDK reads it.

    Raises:
        UnsupportedError: another SDK wrote it, or a newer one.
    """
    if snapshot.sdk != "python":
        raise UnsupportedError(
            f"The snapshot was written by the {snapshot.sdk} Agents SDK {snapshot.sdk_version} "
            f"(schema {snapshot.schema_version}), which Python cannot read.",
            hint="Load it with the SDK that wrote it.",
        )
    if snapshot.schema_version not in SUPPORTED_SCHEMA_VERSIONS:
        newest = max(SUPPORTED_SCHEMA_VERSIONS, key=_as_numbers)
        raise UnsupportedError(
            f"The snapshot has schema {snapshot.schema_version}, written by openai-agents "
            f"{snapshot.sdk_version}; the installed {sdk_version} reads schemas up to {newest}.",
            hint=f"Upgrade to a Timestep that runs with openai-agents {snapshot.sdk_version} or newer.",
        )
    return snapshot


def _as_numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))
