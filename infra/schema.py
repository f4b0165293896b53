"""Versioned migrations of the warehouse's schema: numbered SQL files in `infra/migrations`.

A file is named `NNNN_name.sql`. Its statements end in `;` at the end of a line and must be
idempotent, because two workers may apply them at the same time. A first line
`-- needs server YY.M` skips the file (for now) on older servers.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources

from infra.warehouse_types import Answer, SchemaTooNew

_NAME = re.compile(r"(\d{4})_\w+\.sql")
_NEEDS = re.compile(r"-- needs server (\d+)\.(\d+)")


@dataclass(frozen=True, slots=True)
class Migration:
    number: int
    name: str
    statements: tuple[str, ...]
    needs: tuple[int, int] = (0, 0)  # (major, minor) of the oldest server that knows it


def parse(name: str, text: str) -> Migration:
    """The migration in file `name`.

    >>> parse("0007_x.sql", "-- needs server 20.3\\nSELECT 1;\\nSELECT 2;\\n").statements
    ('SELECT 1', 'SELECT 2')
    """
    matched = _NAME.fullmatch(name)
    if matched is None:
        raise ValueError(f"migration {name!r}: call it NNNN_name.sql")
    needs = _NEEDS.match(text)
    code = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("--"))
    statements = tuple(s.strip() for s in re.split(r";\s*(?:\n|$)", code) if s.strip())
    return Migration(
        int(matched[1]),
        name.removesuffix(".sql"),
        statements,
        (int(needs[1]), int(needs[2])) if needs else (0, 0),
    )


def migrations() -> list[Migration]:
    """Every migration that this program knows, in order."""
    folder = resources.files("infra") / "migrations"
    found = [
        parse(entry.name, entry.read_text("utf-8"))
        for entry in folder.iterdir()
        if entry.name.endswith(".sql")
    ]
    return sorted(found, key=lambda m: m.number)


def server_version(text: str) -> tuple[int, int]:
    """(major, minor) of a version as the server tells it, such as 18.16.1 or 26.9.2.1."""
    major, minor = re.findall(r"\d+", text)[:2]
    return int(major), int(minor)


_CREATE = """CREATE TABLE IF NOT EXISTS schema_migrations (
    number UInt32, name String, applied_ms Int64
) ENGINE = ReplacingMergeTree() ORDER BY number"""
_RECORD = """INSERT INTO schema_migrations (number, name, applied_ms)
SELECT toUInt32(%(number)s), %(name)s, toInt64(toUnixTimestamp(now())) * 1000"""


def migrate(execute: Callable[..., Answer], where: str) -> list[str]:
    """Apply what is pending and return the names; `execute(sql, parameters)` runs a statement.

    Raises SchemaTooNew when the warehouse at `where` knows a migration that we do not.
    """
    known = migrations()
    version = server_version(execute("SELECT version()").rows[0][0])
    execute(_CREATE)
    applied = dict(execute("SELECT DISTINCT number, name FROM schema_migrations").rows)
    newer = sorted(name for number, name in applied.items() if number > known[-1].number)
    if newer:
        raise SchemaTooNew(
            f"{where} has the schema of a newer freshrec ({newer[-1]}; this one knows up to "
            f"{known[-1].name}): update freshrec, or use another warehouse"
        )
    done = []
    for migration in known:
        if migration.number in applied or version < migration.needs:
            continue
        for statement in migration.statements:
            execute(statement)
        execute(_RECORD, {"number": migration.number, "name": migration.name})
        done.append(migration.name)
    return done
