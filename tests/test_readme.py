"""The documents' commands exist, their SQL runs, and they say what the code says."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra import chdb_reader, settings, sql_guard, sql_http
from infra.settings import KEYS, Settings
from infra.warehouse import Warehouse
from online.events import Event, Item
from streams.codec import decode_event, decode_item

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FRESHREC = str(Path(sys.executable).with_name("freshrec"))


def blocks(language: str) -> Iterator[tuple[str, str]]:
    for document in DOCUMENTS:
        for found, text in BLOCK.findall(document.read_text()):
            if found == language:
                yield document.name, text


def shell_lines() -> list[str]:
    lines = []
    for _, text in blocks("sh"):
        for line in text.splitlines():
            words = shlex.split(line, comments=True)
            if words:
                lines.append(shlex.join(words))
    return sorted(set(lines))


def freshrec_lines() -> list[list[str]]:
    """Commands of the documents as arguments of `freshrec`, each once."""
    parsed = [shlex.split(line) for line in shell_lines()]
    return [words[1:] for words in parsed if Path(words[0]).name == "freshrec"]


def run(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [FRESHREC, *arguments], cwd=cwd, capture_output=True, text=True, timeout=120
    )


def command_of(arguments: list[str]) -> str:
    """The command with its subcommand: "produce", "bench live"."""
    return " ".join(arguments[: 2 if arguments[0] == "bench" else 1])


@pytest.fixture(scope="module")
def help_texts() -> dict[str, str]:
    texts = {}
    for command in {command_of(arguments) for arguments in freshrec_lines()}:
        answer = run(*command.split(), "--help")
        assert answer.returncode == 0, f"freshrec {command}: {answer.stderr}"
        texts[command] = answer.stdout
    return texts


def test_the_readme_shows_the_commands_that_it_promises() -> None:
    shown = {arguments[0] for arguments in freshrec_lines()}
    assert {"produce", "query", "recommend", "backtest", "check", "migrate", "worker"} <= shown
    assert {"make demo", "make test"} <= set(shell_lines())


@pytest.mark.parametrize("arguments", freshrec_lines(), ids=shlex.join)
def test_every_command_and_option_exists(arguments: list[str], help_texts: dict[str, str]) -> None:
    for option in (word for word in arguments[1:] if word.startswith("--")):
        command = command_of(arguments)
        assert option in help_texts[command], f"{option} of freshrec {command}"


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([.\w]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for document in DOCUMENTS:
        for target in re.findall(r"`make ([\w.]+)", document.read_text()):
            assert target in targets, f"{document.name}: make {target}"


def test_links_lead_somewhere() -> None:
    for document in [*DOCUMENTS, ROOT / "CHANGELOG.md"]:
        for link in re.findall(r"\]\(([^)#:]+)\)", document.read_text()):
            assert (document.parent / link).exists(), f"{document.name}: {link}"


def test_settings_are_all_described_with_their_defaults() -> None:
    text = (ROOT / "docs" / "settings.md").read_text()
    rows = dict(re.findall(r"^\| `(FRESHREC_\w+)` \| (.+?) \|", text, re.MULTILINE))
    assert list(rows) == [key.name for key in KEYS]
    for key in KEYS:
        if key.name in ("FRESHREC_WAREHOUSE", "FRESHREC_CHECKPOINTS"):  # in the state folder
            continue
        stated = rows[key.name].strip("`")
        read = Settings.from_env({key.name: stated}, dotenv=None)
        assert read == Settings(), f"{key.name}: {stated} is not the default"
    assert settings.PREFIX == "FRESHREC_"


def test_every_runtime_dependency_has_its_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [extra for name, extra in project["optional-dependencies"].items() if name != "dev"]
    lines = [*project["dependencies"], *sum(extras, [])]
    needed = [re.split(r"[<>=[]", line)[0] for line in lines]
    text = (ROOT / "docs" / "security.md").read_text().split("## Runtime dependencies")[1]
    described = re.findall(r"^\| `([\w-]+)` \|", text, re.MULTILINE)
    assert sorted(described) == sorted(needed)


def test_the_limits_that_are_documented_are_those_of_the_endpoint() -> None:
    text = (ROOT / "docs" / "security.md").read_text()
    rows = dict(re.findall(r"^\| (.+?) \| (.+?) \|$", text, re.MULTILINE))
    limits = chdb_reader._LIMITS
    http = sql_http
    assert rows["rows of an answer"] == f"{limits['max_result_rows']:,}"
    assert rows["time of a query; until an answer"] == (
        f"{limits['max_execution_time']} s; {http.ANSWER_S:g} s"
    )
    memory = int(limits["max_memory_usage"]) >> 20
    assert rows["memory of a query, its answer's text included"] == f"{memory} MB"
    assert rows["queries at a time; waiting; how long they wait"] == (
        f"{http.READERS}, one thread each; {http.WAITING}; {http.WAIT_S:g} s"
    )
    assert rows["size of a request, unpacked; of a query"] == (
        f"{http.MAX_BODY >> 20} MB; {sql_guard.MAX_QUERY >> 10} KB"
    )
    assert rows["time for a request to arrive"] == f"{http.BODY_S:g} s"


def test_records_are_described_whole() -> None:
    text = (ROOT / "docs" / "events.md").read_text()
    events, items = text.split("## Item")
    for record, part in ((Event, events), (Item, items)):
        described = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`.+?) \|", part, re.M))))
        assert set(record.__struct_fields__) <= described


def test_example_records_are_accepted() -> None:
    event, item = (text for _, text in blocks("json"))
    assert isinstance(decode_event(event.encode(), 10_000), Event)
    assert isinstance(decode_item(item.encode(), 10_000), Item)


def test_documented_sql_runs(chdb_warehouse: Warehouse) -> None:
    statements = [s for _, text in blocks("sql") for s in text.split(";") if s.strip()]
    statements += [a[1] for a in freshrec_lines() if a[0] == "query"]
    assert len(statements) >= 8
    for statement in statements:
        chdb_warehouse.query(statement)


def test_every_column_and_view_is_described(chdb_warehouse: Warehouse) -> None:
    text = (ROOT / "docs" / "sql.md").read_text()
    described = set(re.findall(r"\w+", text))
    tables = chdb_warehouse.query(
        "SELECT name FROM system.tables WHERE database = currentDatabase()"
    )
    assert {name for (name,) in tables.rows} <= described
    columns = chdb_warehouse.query("SELECT * FROM live_recommendations LIMIT 0").columns
    assert set(columns) <= described


def test_the_three_uses_of_the_readme(tmp_path: Path) -> None:
    """The backtest line, run as written (on fewer events)."""
    (line,) = [a for a in freshrec_lines() if a[0] == "backtest" and "--limit" in a]
    line[line.index("--limit") + 1] = "500"
    line = [str(ROOT / word) if word.startswith("streams/") else word for word in line]
    answer = run(*line, cwd=tmp_path)
    assert answer.returncode == 0, answer.stderr
    assert (tmp_path / "result.json").exists()
