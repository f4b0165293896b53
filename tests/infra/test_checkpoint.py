"""Checkpoints: whole or not there, never something else's end, and faults that say the cure."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from infra.checkpoint import (
    ABOUT,
    FORMAT,
    TENSORS,
    About,
    CheckpointError,
    read_checkpoint,
    write_checkpoint,
)


def about() -> About:
    return About(FORMAT, 4, 8, 8, ["cup", "pot"], {"log": "a.parquet"})


def tensors(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {"a": rng.normal(size=(3, 2)).astype(np.float32), "b": rng.normal(size=5)}


def test_what_was_written_is_read_bit_for_bit_and_a_new_one_takes_its_place(tmp_path: Path) -> None:
    folder = tmp_path / "encoder"
    for seed in (0, 1):
        write_checkpoint(folder, about(), tensors(seed))
        described, found = read_checkpoint(folder)
        assert described.items == ["cup", "pot"]
        for name, array in tensors(seed).items():
            assert found[name].tobytes() == array.tobytes() and found[name].dtype == array.dtype
    assert [path.name for path in tmp_path.iterdir()] == ["encoder"]


def test_a_folder_with_other_files_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(CheckpointError, match="holds other files"):
        write_checkpoint(tmp_path, about(), tensors())
    assert (tmp_path / "thesis.txt").read_text() == "years of work"
    with pytest.raises(CheckpointError, match="is a file"):
        write_checkpoint(tmp_path / "thesis.txt", about(), tensors())


@pytest.mark.parametrize(
    ("name", "spoil", "said"),
    [
        (TENSORS, lambda body: body[:-1], "digest"),
        (TENSORS, lambda body: body[:-1] + bytes([body[-1] ^ 1]), "digest"),
        (ABOUT, lambda body: body[: len(body) // 2], "damaged"),
        (ABOUT, lambda body: body.replace(b'"format": 1', b'"format": 9'), "format 9"),
    ],
)
def test_a_damaged_one_is_refused(tmp_path: Path, name: str, spoil, said: str) -> None:  # type: ignore[no-untyped-def]
    folder = tmp_path / "encoder"
    write_checkpoint(folder, about(), tensors())
    path = folder / name
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(CheckpointError, match=said):
        read_checkpoint(folder)


def test_one_that_is_not_there_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="freshrec train --out"):
        read_checkpoint(tmp_path / "nothing")
