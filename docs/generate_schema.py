"""Write docs/schema.md from a migrated database, or with --check say whether it is up to date.

    python docs/generate_schema.py [--check] [--database-url URL]

Without a url it migrates a fresh database on an embedded server in a temporary folder.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from itertools import groupby
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from timestep.ids import SCHEMA
from timestep.store.connection import Database, open_database
from timestep.store.migrations import HEAD_REVISION, migrate

PAGE = Path(__file__).parent / "schema.md"

CONTRACT_TABLES = ("agents", "sessions", "session_items", "run_states", "approvals")
CONTRACT_FUNCTIONS = ("decide",)
CONTRACT_COLUMNS = {"runs": ("id", "status", "reason", "session_id", "output", "error")}

INTRODUCTION = f"""# Schema

<!-- Made by docs/generate_schema.py; do not edit. -->

Every table and column of the Postgres schema `{SCHEMA}` at revision {HEAD_REVISION}. `timestep db migrate`
brings a database there. DBOS keeps its own tables in the schema `dbos`: read those through DBOS.

**Contract** says what programs in other languages may rely on. Such a column keeps its name, type and
meaning; removing one is a breaking change. Columns may be added. Everything else is internal and may change
with any release: read it through `timestep`.

An approval is decided by the function `timestep.decide`, never by an update: it lets the first decision win and
starts the run again in the same transaction. [Approvals](how-to/approvals.md) shows it from SQL.

A program that adds items to a session first raises `sessions.last_position` by their number, in the same
transaction. That locks the session's row; the positions up to the new value are then its own. Payloads are
`json`, not `jsonb`, so that text with `\\u0000` and the order of keys survive. All times are `timestamptz`.
"""

_COLUMNS = """
select c.relname, obj_description(c.oid, 'pg_class'), a.attname, format_type(a.atttypid, a.atttypmod),
       a.attnotnull, pg_get_expr(d.adbin, d.adrelid), a.attidentity <> '', col_description(c.oid, a.attnum)
from pg_class c
join pg_namespace n on n.oid = c.relnamespace
join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
left join pg_attrdef d on d.adrelid = c.oid and d.adnum = a.attnum
where n.nspname = :schema and c.relkind = 'r'
order by c.relname, a.attnum
"""

_INDEXES = """
select c.relname, pg_get_indexdef(i.indexrelid), i.indisprimary
from pg_index i
join pg_class c on c.oid = i.indrelid
join pg_namespace n on n.oid = c.relnamespace
where n.nspname = :schema
order by c.relname, i.indisprimary desc, pg_get_indexdef(i.indexrelid)
"""

_FUNCTIONS = """
select p.proname, pg_get_function_arguments(p.oid), pg_get_function_result(p.oid), obj_description(p.oid, 'pg_proc')
from pg_proc p
join pg_namespace n on n.oid = p.pronamespace
where n.nspname = :schema
order by p.proname
"""


def render(database: Database) -> str:
    """Return the page for what `database` holds."""
    columns = database.run_sync(_rows, _COLUMNS)
    indexes = database.run_sync(_rows, _INDEXES)
    sections = [INTRODUCTION]
    for table, rows in groupby(columns, key=lambda row: row[0]):
        sections.append(_section(table, list(rows), [row for row in indexes if row[0] == table]))
    for name, arguments, result, comment in database.run_sync(_rows, _FUNCTIONS):
        mark = "Contract." if name in CONTRACT_FUNCTIONS else "Internal."
        lines = arguments.replace(", ", ",\n  ")
        shown = f"{name}(\n  {lines}) returns {result}"
        sections.append(f"## {name}()\n\n```sql\n{shown}\n```\n\n{mark} {comment}\n")
    return "\n".join(sections)


def _rows(connection: sa.Connection, query: str) -> list[Any]:
    return list(connection.execute(sa.text(query), {"schema": SCHEMA}))


def _section(table: str, rows: list[Any], indexes: list[Any]) -> str:
    lines = [
        f"## {table}",
        "",
        rows[0][1] or "",
        "",
        "| column | type | null | default | contract | meaning |",
    ]
    lines.append("|---|---|---|---|---|---|")
    for _, _, column, type_, is_required, default, is_identity, comment in rows:
        shown = "identity" if is_identity else f"`{default}`" if default else ""
        mark = "contract" if is_contract(table, column) else "internal"
        cells = [f"`{column}`", type_, "" if is_required else "yes", shown, mark, comment or ""]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    lines.append("")
    for _, definition, is_primary in indexes:
        keys = definition.split(" (", 1)[1].replace('"', "")
        lines.append(f"- {'Primary key' if is_primary else 'Index'}: `({keys}`")
    return "\n".join([*lines, ""])


def is_contract(table: str, column: str) -> bool:
    """Return whether other languages may rely on the column."""
    return table in CONTRACT_TABLES or column in CONTRACT_COLUMNS.get(table, ())


def render_from(url: str | None) -> str:
    """Migrate the database at `url`, or a fresh embedded one, and return its page."""
    with tempfile.TemporaryDirectory() as folder:
        database = open_database(url, application="timestep", embedded_directory=Path(folder) / "postgres")
        try:
            migrate(database)
            return render(database)
        finally:
            database.close()


def main() -> int:
    """Write the page, or check it: 1 when it is not what would be written."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 when the page is stale")
    parser.add_argument("--database-url", help="a database to migrate and describe")
    options = parser.parse_args()
    page = render_from(options.database_url)
    if not options.check:
        PAGE.write_text(page, encoding="utf-8")
        return 0
    if PAGE.is_file() and PAGE.read_text(encoding="utf-8") == page:
        return 0
    sys.stderr.write("error: docs/schema.md is not up to date\nhint: run python docs/generate_schema.py\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
