"""A network that can be cut: a namespace with one cable to this machine, and a way through it to the server.

The server listens on a Unix socket only. A relay stands for its TCP port: it notices a dead connection by keepalives,
as the server does, and then closes the connection behind it.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_numbers = itertools.count(1)


class NoNamespace(Exception):
    """This machine or this user cannot make network namespaces; the text says why."""


@dataclass(frozen=True, kw_only=True)
class Partition:
    """A namespace, its cable, and the address under which the server is found from inside."""

    namespace: str
    cable: str
    host: str
    port: int

    def url(self, database: str) -> str:
        return f"postgresql://postgres@{self.host}:{self.port}/{database}"

    def cut(self) -> None:
        _ip("link", "set", self.cable, "down")

    def mend(self) -> None:
        _ip("link", "set", self.cable, "up")


@contextlib.contextmanager
def partition(server_socket: Path) -> Iterator[Partition]:
    """Make a namespace from which the server of this socket can be reached, and take it away again.

    Raises:
        NoNamespace: it cannot be made here.
    """
    if os.geteuid() != 0 or shutil.which("ip") is None:
        raise NoNamespace("network namespaces need root and the command `ip`")
    number = next(_numbers)
    name = f"ts{os.getpid()}x{number}"
    inside, outside = f"a{os.getpid() % 10**7}x{number}", f"b{os.getpid() % 10**7}x{number}"
    third, fourth = os.getpid() % 250, 4 * (number % 60)
    here, there = f"10.231.{third}.{fourth + 1}", f"10.231.{third}.{fourth + 2}"
    try:
        _ip("netns", "add", name)
    except subprocess.CalledProcessError as error:
        raise NoNamespace(f"`ip netns add` failed: {error.stderr.strip()}") from error
    try:
        _ip("link", "add", outside, "type", "veth", "peer", "name", inside)
        _ip("link", "set", inside, "netns", name)
        _ip("addr", "add", f"{here}/30", "dev", outside)
        _ip("link", "set", outside, "up")
        for words in (("addr", "add", f"{there}/30", "dev", inside), ("link", "set", inside, "up"),
                      ("link", "set", "lo", "up")):  # fmt: skip
            _ip("-n", name, *words)
        with socket.create_server((here, 0)) as listener:
            threading.Thread(target=_accept, args=(listener, server_socket), daemon=True).start()
            yield Partition(namespace=name, cable=outside, host=here, port=listener.getsockname()[1])
    finally:
        for words in (("link", "del", outside), ("netns", "del", name)):
            with contextlib.suppress(subprocess.CalledProcessError):
                _ip(*words)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


def _accept(listener: socket.socket, server_socket: Path) -> None:
    with contextlib.suppress(OSError):
        while True:
            client, _ = listener.accept()
            threading.Thread(target=_relay, args=(client, server_socket), daemon=True).start()


def _relay(client: socket.socket, server_socket: Path) -> None:
    """Pass bytes to and fro until either side is gone."""
    for option, value in ((socket.TCP_KEEPIDLE, 1), (socket.TCP_KEEPINTVL, 1), (socket.TCP_KEEPCNT, 2),
                          (socket.TCP_USER_TIMEOUT, 3000)):  # fmt: skip
        client.setsockopt(socket.IPPROTO_TCP, option, value)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    with client, socket.socket(socket.AF_UNIX) as server, contextlib.suppress(OSError):
        server.connect(str(server_socket))
        ends = {client: server, server: client}
        while True:
            for end in select.select(list(ends), [], [])[0]:
                data = end.recv(65536)
                if not data:
                    return
                ends[end].sendall(data)
