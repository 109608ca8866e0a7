"""The values of settings: read from text, or refused with what to write."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from written_settings import describe, write_config

from timestep.errors import SettingsError
from timestep.records import QueueLimits
from timestep.settings import (
    Settings,
)

URL = "postgresql://ann:secret@db.example:5433/shop"
OTHER = "postgresql://ann:secret@db.example:5433/other"

Resolve = Callable[..., Settings]


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("TIMESTEP_APP_NAME", "My App"),
        ("TIMESTEP_APP_NAME", "ab"),
        ("TIMESTEP_MAX_RESULT_BYTES", "8MB"),
        ("TIMESTEP_EXECUTOR_THREADS", "0"),
        ("TIMESTEP_TOOL_THREADS", "-1"),
        ("TIMESTEP_POOL_SIZE", "1"),
        ("TIMESTEP_POOL_SIZE", "٣"),
        ("TIMESTEP_RUN_MIGRATIONS", "maybe"),
        ("TIMESTEP_TAKEOVER_SECONDS", "nan"),
        ("TIMESTEP_TAKEOVER_SECONDS", "inf"),
        ("TIMESTEP_TAKEOVER_SECONDS", "five"),
        ("TIMESTEP_LOG_LEVEL", "LOUD"),
        ("TIMESTEP_PROBE_LOCAL", "perhaps"),
        ("TIMESTEP_EXECUTOR_ID", "a\tb"),
        ("TIMESTEP_RATE_LIMITS", "{"),
        ("TIMESTEP_RATE_LIMITS", "[60]"),
        ("TIMESTEP_RATE_LIMITS", '{"gpt-4.1": 60}'),
        ("TIMESTEP_RATE_LIMITS", '{"gpt-4.1": {}}'),
        ("TIMESTEP_RATE_LIMITS", '{"gpt-4.1": {"requests": 60}}'),
        ("TIMESTEP_RATE_LIMITS", '{"gpt-4.1": {"requests_per_minute": 0}}'),
        ("TIMESTEP_RATE_LIMITS", '{"gpt-4.1": {"requests_per_minute": true}}'),
        ("TIMESTEP_RATE_LIMITS", '{"gpt-4.1": {"tokens_per_minute": 1.5}}'),
        ("TIMESTEP_RATE_LIMITS", '{"a|b": {"tokens_per_minute": 5}}'),
    ],
)
def test_a_malformed_value_is_refused_with_variable_value_and_what_to_write(
    resolve: Resolve, tmp_path: Path, variable: str, value: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        resolve({variable: value})
    assert variable in str(caught.value)
    assert repr(value) in str(caught.value)
    assert caught.value.hint.startswith(f"Write {variable} as ")
    refused = [one for one in describe(tmp_path, {variable: value}).values() if one.problem]
    assert [(one.value, one.problem, one.hint) for one in refused] == [("", str(caught.value), caught.value.hint)]


def test_rate_limits_of_a_file_are_shown_and_refused_by_their_key(resolve: Resolve, tmp_path: Path) -> None:
    limits = "gpt-4.1: {requests_per_minute: 500, tokens_per_minute: 30000}, ollama/: {requests_per_minute: 60}"
    write_config(tmp_path, f"timestep: {{rate_limits: {{{limits}}}}}")
    assert describe(tmp_path, {})["TIMESTEP_RATE_LIMITS"].value == (
        "gpt-4.1: 500 requests and 30,000 tokens a minute, ollama/: 60 requests a minute"
    )
    for key, says in (
        ("https://api.openai.com/v1", "hosts, of which 'https://api.openai.com/v1' is none"),
        ("m", "'m'"),
    ):
        write_config(tmp_path, f"timestep: {{rate_limits: {{'{key}': {{requests_per_day: 1}}}}}}")
        with pytest.raises(SettingsError, match=r"timestep\.rate_limits is") as caught:
            resolve()
        assert says in caught.value.hint


def test_queues_come_from_a_file_or_the_environment(resolve: Resolve, tmp_path: Path) -> None:
    write_config(tmp_path, "timestep: {queues: {reports: {global_concurrency: 2, rate_limit: 50}, plain: }}")
    assert resolve().queues == {"reports": QueueLimits(global_concurrency=2, rate_limit=50), "plain": QueueLimits()}
    assert resolve({"TIMESTEP_QUEUES": '{"mails": {}}'}).queues == {"mails": QueueLimits()}


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("reports", "a mapping such as"),
        ('["reports"]', "a mapping such as"),
        ('{"reports": 2}', "a mapping such as"),
        ('{"reports": {"concurrency": 2}}', "not 'concurrency' as 'reports' has"),
        ('{"reports": {"global_concurrency": 0}}', "of 'reports': "),
        ('{"_dbos_x": {}}', "of '_dbos_x': "),
    ],
)
def test_what_is_no_queue_is_refused_with_the_form(resolve: Resolve, value: str, says: str) -> None:
    with pytest.raises(SettingsError, match="TIMESTEP_QUEUES") as caught:
        resolve({"TIMESTEP_QUEUES": value})
    assert says in caught.value.hint


def test_a_boolean_is_no_number(resolve: Resolve) -> None:
    with pytest.raises(SettingsError, match="argument pool_size is 'true'"):
        resolve(pool_size=True)
    with pytest.raises(SettingsError, match="argument takeover_seconds"):
        resolve(takeover_seconds=True)
