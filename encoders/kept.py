"""What a trainer has learned as plain arrays and values, and back: chance included."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import torch
from torch import Tensor

from encoders.replay import Replay
from encoders.table import Table


def plain(value: Any) -> Any:
    """A tree of tensors as a tree of arrays (copies of nothing that lies in main memory)."""
    if isinstance(value, Tensor):
        return value.detach().cpu().numpy()
    if isinstance(value, dict):
        return {name: plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return value


def tensors(value: Any, device: torch.device) -> Any:
    """A tree of arrays as a tree of tensors."""
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value).to(device)
    if isinstance(value, dict):
        return {name: tensors(each, device) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [tensors(each, device) for each in value]
    return value


def chance(rng: np.random.Generator) -> str:
    """Where a generator is."""
    return json.dumps(rng.bit_generator.state)


def set_chance(rng: np.random.Generator, state: str) -> None:
    rng.bit_generator.state = json.loads(state)


_TABLE = ("values", "mean", "square", "steps")
_COLUMNS = ("key", "count", "last", "_row_of_slot")


def table_state(table: Table) -> dict[str, Any]:
    return {
        **{name: plain(getattr(table, name)) for name in _TABLE},
        **{name: getattr(table, name) for name in _COLUMNS},
        "free": np.array(table._free, np.int64),
        "random": table._random.get_state().numpy(),
    }


def restore_table(table: Table, state: dict[str, Any]) -> None:
    for name in _TABLE:
        setattr(table, name, tensors(state[name], table.device))
    for name in _COLUMNS:
        setattr(table, name, state[name])
    table._free = state["free"].tolist()
    table._random.set_state(torch.from_numpy(state["random"]))


def replay_state(replay: Replay) -> dict[str, Any]:
    n = len(replay._last)
    return {
        "ring": replay._ring,
        "kept": replay._kept,
        "users": np.fromiter(replay._last.keys(), np.int64, n),
        "newest": np.fromiter(replay._last.values(), np.int64, n),
        "chance": chance(replay._rng),
        "events": replay.events,
    }


def restore_replay(replay: Replay, state: dict[str, Any]) -> None:
    replay._ring, replay._kept = state["ring"], state["kept"]
    replay._last = dict(zip(state["users"].tolist(), state["newest"].tolist(), strict=True))
    set_chance(replay._rng, state["chance"])
    replay.events = state["events"]
