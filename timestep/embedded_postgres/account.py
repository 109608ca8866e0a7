"""Who the server runs as. Postgres refuses root, and initdb refuses a user id without a name.

* An ordinary user: the server runs as that user.
* Root: the programs run in a user namespace with one entry. Inside, Postgres sees the user `nobody`; outside,
  it is root, all files are root's, and no folder is opened to others. It also helps a user id without a name.
* Root where user namespaces are denied, as in Docker by default: the programs run as the existing user
  `nobody`, and `data/`, `socket/` and `server.log` belong to it. `nobody` must be able to enter the folder,
  which rules out /root; without TIMESTEP_DATA_DIR such a server lives in /var/lib/timestep. Other programs of
  `nobody` can reach it.
"""

# pyright: reportPossiblyUnboundVariable=false
# Windows has no pwd; what uses it is refused there before it is called.
from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from timestep.errors import EmbeddedPostgresError

if sys.platform != "win32":
    import pwd

NOBODY = "nobody"
PROGRAM_TIMEOUT_SECONDS = 120.0

# What `unshare --map-user` does, for machines without it. A child of its own: code between fork and exec
# (preexec_fn) can deadlock in a process that has threads.
ENTER_NAMESPACE = """
import ctypes, os, sys
inner_user, inner_group, outer_user, outer_group = sys.argv[1:5]
if ctypes.CDLL(None, use_errno=True).unshare(0x10000000):  # CLONE_NEWUSER
    raise OSError(ctypes.get_errno(), "unshare")
for name, text in (
    ("setgroups", "deny"),
    ("uid_map", f"{inner_user} {outer_user} 1"),
    ("gid_map", f"{inner_group} {outer_group} 1"),
):
    with open(f"/proc/self/{name}", "w") as file:
        file.write(text)
os.execv(sys.argv[5], sys.argv[5:])
"""


@dataclass(frozen=True, kw_only=True)
class Account:
    """How Postgres' programs are started, and whose files they are."""

    user_id: int
    group_id: int
    prefix: tuple[str, ...] = ()
    is_switched: bool = False
    """Whether the programs run under another user id than this process."""

    def run(self, arguments: list[str], *, keep: tuple[int, ...] = ()) -> subprocess.CompletedProcess[str]:
        """Run a program to its end and return its output. `keep` names descriptors it inherits.

        Raises:
            EmbeddedPostgresError: it has not ended within two minutes.
        """
        try:
            return subprocess.run(
                [*self.prefix, *arguments],
                check=False,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                env=_environment(),
                cwd="/",
                timeout=PROGRAM_TIMEOUT_SECONDS,
                pass_fds=keep,
                start_new_session=True,
                user=self.user_id if self.is_switched else None,
                group=self.group_id if self.is_switched else None,
                extra_groups=() if self.is_switched else None,
            )
        except subprocess.TimeoutExpired as error:
            raise EmbeddedPostgresError(
                f"{arguments[0]} has not ended within {PROGRAM_TIMEOUT_SECONDS:g} s.",
                hint="The disk or the machine may be overloaded: try again.",
            ) from error

    def launch(self, arguments: list[str], *, log: Path) -> int:
        """Start a program that outlives this process; return its process id.

        The shell is gone at once, so the program is not our child, and Ctrl-C does not reach its session.
        Output goes to a file: whoever holds a pipe's other end would wait for it.
        """
        script = 'log=$1; shift; "$@" </dev/null >>"$log" 2>&1 & echo $!'
        done = self.run(["/bin/sh", "-c", script, "sh", str(log), *arguments])
        if done.returncode != 0 or not done.stdout.strip().isdigit():
            raise EmbeddedPostgresError(f"{arguments[0]} could not be started: {done.stdout.strip()}")
        return int(done.stdout)

    def can_enter(self, folder: Path) -> bool:
        """Tell whether the server could work in the folder."""
        if not self.is_switched and not self.prefix:
            return True  # then the server may do what this process may do
        return self.run(["/bin/sh", "-c", 'cd "$1"', "sh", str(folder)]).returncode == 0

    def take_over(self, path: Path) -> None:
        """Make a file or folder belong to the account, with all that is in it. Only root can and needs to."""
        if os.geteuid() != 0 or path.lstat().st_uid == self.user_id:
            return
        for folder, _, files in os.walk(path):
            for name in files:
                os.chown(Path(folder, name), self.user_id, self.group_id, follow_symlinks=False)
            os.chown(folder, self.user_id, self.group_id)
        os.chown(path, self.user_id, self.group_id, follow_symlinks=False)


@functools.cache
def choose_account() -> Account:
    """Find out once per process how this machine lets Postgres run.

    Raises:
        EmbeddedPostgresError: neither way is possible.
    """
    user_id, group_id = os.geteuid(), os.getegid()
    if user_id != 0 and _has_name(user_id):
        return Account(user_id=user_id, group_id=group_id)
    nobody = _find_nobody()
    for prefix in namespace_prefixes(nobody):
        account = Account(user_id=user_id, group_id=group_id, prefix=prefix)
        if _works(account):
            return account
    if user_id == 0:
        account = Account(user_id=nobody.pw_uid, group_id=nobody.pw_gid, is_switched=True)
        if _works(account):
            return account
    raise EmbeddedPostgresError(
        f"Postgres does not run as user id {user_id}, and user namespaces are not allowed here.",
        hint="Run as an ordinary user with an entry in /etc/passwd, or set PG_CONNECTION_URI to a Postgres "
        "server of your own.",
    )


def namespace_prefixes(nobody: pwd.struct_passwd) -> list[tuple[str, ...]]:
    """Return the commands that could put a program into a one-entry user namespace, best first."""
    if sys.platform != "linux":
        return []
    user, group = str(nobody.pw_uid), str(nobody.pw_gid)
    prefixes: list[tuple[str, ...]] = []
    unshare = shutil.which("unshare")
    if unshare is not None:
        prefixes.append((unshare, "--user", f"--map-user={user}", f"--map-group={group}", "--"))
    outside = (str(os.geteuid()), str(os.getegid()))
    prefixes.append((sys.executable, "-I", "-S", "-c", ENTER_NAMESPACE, user, group, *outside))
    return prefixes


def _works(account: Account) -> bool:
    try:
        return account.run(["/bin/sh", "-c", "exit 0"]).returncode == 0
    except (OSError, subprocess.SubprocessError, EmbeddedPostgresError):
        return False


def _has_name(user_id: int) -> bool:
    try:
        pwd.getpwuid(user_id)
    except KeyError:
        return False
    return True


def _find_nobody() -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(NOBODY)
    except KeyError:
        raise EmbeddedPostgresError(
            f"Postgres does not run as user id {os.geteuid()}, and there is no user `{NOBODY}` to run it as.",
            hint="Run as an ordinary user, or set PG_CONNECTION_URI to a Postgres server of your own.",
        ) from None


def _environment() -> dict[str, str]:
    """Return this process's environment without what would bend Postgres' programs."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PG") and k != "LD_LIBRARY_PATH"}
    return {**kept, "LC_ALL": "C"}
