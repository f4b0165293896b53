"""Migrations as files: numbering, statements, and the server that they need."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from infra.schema import migrate, migrations, parse, server_version
from infra.warehouse_types import Answer


def test_numbers_are_unique_and_in_order() -> None:
    numbers = [m.number for m in migrations()]
    assert numbers == list(range(1, len(numbers) + 1))


def test_statements_are_split_and_comments_dropped() -> None:
    text = "-- needs server 20.8\n-- why; so\nSELECT ';'\n  -- aside\nFROM t;\n\nSELECT 2;\n"
    parsed = parse("0004_more.sql", text)
    assert parsed.statements == ("SELECT ';'\nFROM t", "SELECT 2")
    assert (parsed.number, parsed.name, parsed.needs) == (4, "0004_more", (20, 8))
    with pytest.raises(ValueError, match="NNNN_name.sql"):
        parse("more.sql", text)


def test_versions_are_read() -> None:
    assert server_version("18.16.1") == (18, 16)
    assert server_version("26.9.2.1") > (20, 8) > server_version("20.3.1.1-debian")


class Scripted:
    """Answers as a server of `version` would on which `applied` numbers were applied."""

    def __init__(self, version: str, applied: list[int]) -> None:
        self.version, self.applied = version, applied
        self.statements: list[str] = []

    def __call__(self, sql: str, parameters: Mapping[str, Any] | None = None) -> Answer:
        self.statements.append(sql)
        if "version()" in sql:
            return Answer(["version()"], [(self.version,)])
        if "DISTINCT" in sql:
            return Answer(["number", "name"], [(n, f"{n:04}_x") for n in self.applied])
        return Answer([], [])


def test_a_server_that_was_updated_gets_what_it_could_not_have() -> None:
    old, new = Scripted("18.16.1", []), Scripted("24.8.1.1", [1, 2, 5, 6, 8, 9, 10])
    everywhere = ["0001_tables", "0002_views", "0005_vectors", "0006_journal", "0008_erasures",
                  "0009_texts", "0010_opinions"]  # fmt: skip
    assert migrate(old, "here") == everywhere
    assert migrate(new, "here") == ["0003_retention", "0004_small_blocks", "0007_journal_retention"]
    assert any("MODIFY TTL" in s for s in new.statements)
