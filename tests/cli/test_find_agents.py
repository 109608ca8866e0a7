"""Agents in the modules and files that a command names."""

from __future__ import annotations

import pytest
from command_line import Shop

from timestep.cli.find_agents import is_reference


def test_a_file_named_like_the_sdk_is_found_by_its_path(shop: Shop) -> None:
    (shop.folder / "agents.py").write_text("from shop import support\n")
    try:
        run = shop.call("run", "order 2", "--agent", "agents.py:support")
    finally:
        (shop.folder / "agents.py").unlink()
    assert (run.returncode, run.stdout) == (0, "Your order 2 is on its way.\n"), run.stderr


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("a:b", True),
        ("a.b:c.d", True),
        ("some/path.py:c", True),
        ("support", False),
        ("a b:c", False),
        ("v2: new", False),
    ],
)
def test_a_reference_is_told_from_a_name(text: str, is_one: bool) -> None:
    assert is_reference(text) is is_one
