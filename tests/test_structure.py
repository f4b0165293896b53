"""The project's shape: what a newcomer relies on before any code runs."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from streams import sample

ROOT = Path(__file__).parent.parent


def _project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def _name(requirement: str) -> str:
    name = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert name, requirement
    return re.sub(r"[-_.]+", "-", name.group()).lower()


def test_every_dependency_is_pinned() -> None:
    project = _project()["project"]
    wanted = [*project["dependencies"], *sum(project["optional-dependencies"].values(), [])]
    pins = {_name(line) for line in (ROOT / "constraints.txt").read_text().splitlines() if line}
    assert {_name(requirement) for requirement in wanted} <= pins | {"freshrec"}  # its own extras


def test_pins_are_exact() -> None:
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line), line


def test_the_sample_is_real_small_and_attributed() -> None:
    events, items = pq.read_table(sample.EVENTS), pq.read_table(sample.ITEMS)
    assert events.num_rows == 50_000
    assert set(events["item_id"].to_pylist()) == set(items["item_id"].to_pylist())
    assert all(items["title"].to_pylist())
    assert events["ts"].to_pylist() == sorted(events["ts"].to_pylist())
    assert sample.EVENTS.stat().st_size + sample.ITEMS.stat().st_size < 2_000_000
    terms = (sample.EVENTS.parent / "ATTRIBUTION.md").read_text()
    assert "CC BY 4.0" in terms and "What was changed" in terms


def _make(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", *arguments], cwd=folder, capture_output=True, text=True, timeout=60
    )


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with what `make` reads, and no environment."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    return tmp_path


def _script(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o755)
    return path


def test_make_names_the_cure_for_an_old_python(checkout: Path) -> None:
    old = _script(checkout / "old-python", "#!/bin/sh\n[ $1 = --version ] && echo 3.9.2\nexit 1\n")
    answer = _make(checkout, f"PYTHON={old}", "demo")
    assert answer.returncode != 0
    assert "needs Python 3.11 or newer" in answer.stderr and "3.9.2" in answer.stderr
    assert "make PYTHON=python3.12 demo" in answer.stderr


def test_make_names_the_cure_for_a_python_without_venv(checkout: Path) -> None:
    bare = _script(
        checkout / "bare-python", '#!/bin/sh\ncase "$2" in *venv*) exit 1;; *) exit 0;; esac\n'
    )
    answer = _make(checkout, f"PYTHON={bare}", ".venv")
    assert answer.returncode != 0
    assert "python3-venv" in answer.stderr


def test_an_interrupted_installation_is_taken_up_again(checkout: Path) -> None:
    """The environment counts as made only when its stamp is there."""
    (checkout / ".venv").mkdir()
    assert "pip install" in _make(checkout, "-n", "demo").stdout
    (checkout / ".venv" / "installed").touch()
    assert "pip install" not in _make(checkout, "-n", "demo").stdout
    later = (checkout / ".venv" / "installed").stat().st_mtime + 10

    os.utime(checkout / "constraints.txt", (later, later))
    assert "pip install" in _make(checkout, "-n", "demo").stdout
