"""Full disks and folders that cannot be written."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from timestep.embedded_postgres import EmbeddedPostgres
from timestep.errors import EmbeddedPostgresError


class Disk:
    """A small disk of its own, in memory."""

    def __init__(self, path) -> None:
        self.path = path
        self.server = EmbeddedPostgres(path / "postgres" / "18")

    def mount(self, options: str) -> None:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(self.path)]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"mounting is not permitted: {done.stderr.splitlines()[0]}")

    def remount(self, options: str) -> None:
        self.mount(f"remount,{options}")

    def names(self) -> list[str]:
        return sorted(str(found.relative_to(self.path / "postgres")) for found in self.path.glob("postgres/**/*.*"))


@pytest.fixture
def small(tmp_path):
    small = Disk(tmp_path / "disk")
    small.path.mkdir()
    small.path = small.path.resolve()
    try:
        yield small
        small.server.release()
        small.server.stop()
    finally:
        subprocess.run(["umount", "-l", str(small.path)], check=False, capture_output=True)


def fails_for_want_of_space(server: EmbeddedPostgres) -> None:
    with pytest.raises(EmbeddedPostgresError, match="No space is left on the disk of") as caught:
        server.ensure()
    assert str(server.directory) in str(caught.value)
    assert "Free some space" in caught.value.hint
    assert "TIMESTEP_DATA_DIR" in caught.value.hint


def test_a_disk_too_small_for_the_programs_is_named_and_left_clean(small):
    small.mount("size=10m")
    fails_for_want_of_space(small.server)
    names = {found.name for found in small.path.rglob("*")}
    assert names == {"postgres", "18", "lock", "holders", "binaries.lock"}
    small.remount("size=200m")
    small.server.ensure()


def test_a_disk_too_small_for_the_cluster_is_named_and_left_clean(small, programs):
    size = sum(found.stat().st_blocks * 512 for found in programs.rglob("*"))
    small.mount(f"size={size + 12_000_000}")
    fails_for_want_of_space(small.server)
    assert {found.name for found in small.server.directory.iterdir()} == {"lock", "holders"}
    small.remount("size=200m")
    small.server.ensure()


def test_a_disk_that_is_full_at_the_start_is_named_and_the_data_stays(small):
    small.mount("size=200m")
    with small.server.connect("postgres") as connection:
        connection.execute("create table kept as select 42 as number")
    small.server.release()
    log = small.server.status().log_path
    with log.open("a") as file:  # to the end of its page: the server can then not even log why it fails
        file.write("\n" * (-log.stat().st_size % 4096))
    filler = small.path / "filler"
    fill(filler)
    fails_for_want_of_space(small.server)
    filler.unlink()
    with small.server.connect("postgres") as connection:
        assert connection.execute("select number from kept").fetchone() == (42,)


def fill(path: Path) -> None:
    """Write until the disk takes no more byte."""
    with path.open("wb", buffering=0) as file:
        for size in (1_000_000, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(b"x" * size)


def cannot_be_written(server: EmbeddedPostgres) -> None:
    with pytest.raises(EmbeddedPostgresError, match="cannot be written") as caught:
        server.ensure()
    assert str(server.directory.parents[1]) in str(caught.value)
    assert "TIMESTEP_DATA_DIR" in caught.value.hint


def test_a_read_only_disk_is_named(small):
    small.mount("size=1m,ro")
    cannot_be_written(small.server)


def test_a_disk_that_has_become_read_only_is_named(small):
    small.mount("size=200m")
    small.server.ensure()
    small.server.release()
    small.remount("ro")
    cannot_be_written(small.server)
    small.remount("rw")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_named(tmp_path):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    cannot_be_written(EmbeddedPostgres(closed / "postgres" / "18"))
    closed.chmod(0o700)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_for_the_programs_is_left_clean(tmp_path):
    target = tmp_path / "postgres"
    (target / "18").mkdir(parents=True)
    target.chmod(0o500)
    with pytest.raises(EmbeddedPostgresError, match=r"binaries\.lock cannot be written"):
        EmbeddedPostgres(target / "18").ensure()
    assert [found.name for found in target.iterdir()] == ["18"]
    target.chmod(0o700)


def test_a_file_in_place_of_the_folder_is_named(tmp_path):
    (tmp_path / "postgres").write_text("")
    with pytest.raises(EmbeddedPostgresError, match=str(tmp_path / "postgres")):
        EmbeddedPostgres(tmp_path / "postgres" / "18").ensure()
    shutil.rmtree(tmp_path, ignore_errors=True)
