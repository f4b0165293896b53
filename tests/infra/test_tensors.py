"""Files of arrays: what was written comes back, and what is damaged does not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from infra.checkpoints import KEPT, About, Checkpoints, CheckpointsError, Mark, about_state
from infra.parts import note_of, read_part, write_part
from infra.tensors import Damaged, read_tree, write_tree
from online.state import differences

TREE = {
    "name": "core",
    "ids": ["a", "b"],
    "empty": np.zeros((0, 3), np.float32),
    "deep": {"x": np.arange(12, dtype=np.int64).reshape(3, 4), "flag": np.array([True, False])},
    "list": [np.float32([1.5]), {"y": np.uint64([2**63])}],
    "none": None,
    "bytes": b"\x00\xff",
    "nan": float("nan"),
}


def test_a_tree_comes_back_bit_by_bit(tmp_path: Path) -> None:
    digest = write_tree(tmp_path / "t.safetensors", TREE)
    again = read_tree(tmp_path / "t.safetensors", digest)
    assert differences(TREE, again) == []
    again["deep"]["x"][0, 0] = 7  # what is read may be learned on


def test_others_can_read_the_format(tmp_path: Path) -> None:
    write_tree(tmp_path / "t.safetensors", TREE)
    found = load_file(tmp_path / "t.safetensors")
    assert np.array_equal(found["deep/x"], TREE["deep"]["x"])  # type: ignore[index]


@settings(max_examples=60, deadline=None)
@given(place=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_a_flipped_bit_is_always_noticed(
    tmp_path_factory: pytest.TempPathFactory, place: int, bit: int
) -> None:
    path = tmp_path_factory.mktemp("flip") / "t.safetensors"
    digest = write_tree(path, TREE)
    body = bytearray(path.read_bytes())
    body[place % len(body)] ^= 1 << bit
    path.write_bytes(body)
    with pytest.raises(Damaged):
        read_tree(path, digest)


@pytest.mark.parametrize("length", [0, 4, 8, 100])
def test_a_cut_file_is_damaged(tmp_path: Path, length: int) -> None:
    path = tmp_path / "t.safetensors"
    digest = write_tree(path, TREE)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(Damaged):
        read_tree(path, digest)


def committed(checkpoints: Checkpoints, batch: int) -> Path:
    folder = checkpoints.begin()
    write_part(folder / "core", {"batch": batch})
    note = note_of(folder / "core")
    assert note is not None
    parts = {"core": note.digest}
    checkpoints.commit(folder, About(1, "0", checkpoints.shard, batch, "b", {}, 0, parts, {}))
    return checkpoints.states()[0]


def test_the_newest_three_states_are_kept_and_can_be_read(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    for batch in (10, 20, 20, 30, 40):  # two of one batch do not replace each other
        newest = committed(checkpoints, batch)
    assert len(checkpoints.states()) == KEPT
    about = about_state(newest)
    assert about.batch == 40
    assert read_part(newest / "core", about.parts["core"]) == {"batch": 40}
    checkpoints.close()


@pytest.mark.parametrize("by", ["commit", "drop_older"])
def test_a_kill_while_an_old_state_is_removed_leaves_no_half_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    checkpoints = Checkpoints(tmp_path)
    for batch in (10, 20, 30):
        committed(checkpoints, batch)

    def killed(folder: Path) -> None:
        (folder / "about.json").unlink()
        raise SystemExit

    monkeypatch.setattr("infra.checkpoints.shutil.rmtree", killed)
    with pytest.raises(SystemExit):
        if by == "commit":
            folder = checkpoints.folder / "new-000000000004"
            folder.mkdir()
            checkpoints.commit(folder, About(1, "0", 0, 40, "b", {}, 0, {}, {}))
        else:
            checkpoints.drop_older()
    assert [about_state(state).batch for state in checkpoints.states()]  # each can be read
    checkpoints.close()
    monkeypatch.undo()
    again = Checkpoints(tmp_path)
    assert not [path.name for path in again.folder.iterdir() if path.name.startswith("old-")]
    again.close()


def test_a_number_that_is_used_again_may_be_damaged_again(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    committed(checkpoints, 10)
    for batch in (20, 30):
        newest = committed(checkpoints, batch)
        checkpoints.put_by(newest)
        assert [about_state(state).batch for state in checkpoints.states()] == [10]
    checkpoints.close()


def test_two_workers_have_two_shards_and_a_crash_frees_one(tmp_path: Path) -> None:
    first, second = Checkpoints(tmp_path), Checkpoints(tmp_path)
    assert (first.shard, second.shard) == (0, 1)
    assert first.lineage != second.lineage
    first.close()
    third = Checkpoints(tmp_path)
    assert third.shard == 0 and third.lineage
    second.close()
    third.close()


def test_a_mark_is_whole_or_none(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.mark(Mark(7, "b", {"events/0": 3}))
    found = checkpoints.marked()
    assert found is not None and (found.batch, found.offsets) == (7, {"events/0": 3})
    path = checkpoints.folder / "mark.json"
    path.write_bytes(path.read_bytes().replace(b":7,", b":8,"))
    assert checkpoints.marked() is None
    aside = checkpoints.set_aside()
    assert aside is not None and (aside / "mark.json").exists() and not checkpoints.used
    checkpoints.close()


def test_a_folder_that_cannot_be_used_is_named_with_the_cure(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointsError, match="FRESHREC_CHECKPOINTS"):
        Checkpoints(tmp_path / "file" / "checkpoints")
