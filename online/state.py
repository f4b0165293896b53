"""What a core has learned, as plain values: to be kept in a file and taken back.

`state()` of each part gives a tree, `restore(state)` takes it back: dicts and lists of strings,
numbers, bytes and arrays. Arrays may be the part's own, not copies: write them down before anything
is learned, or in a fork.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

State = dict[str, Any]


def flattened(tree: State) -> tuple[dict[str, np.ndarray], State]:
    """The arrays of a tree by their path, and the tree with these paths in their place.

    >>> flattened({"a": 1, "b": [np.zeros(2)]})
    ({'b/0': array([0., 0.])}, {'a': 1, 'b': [{'array': 'b/0'}]})
    """
    arrays: dict[str, np.ndarray] = {}

    def walk(value: Any, path: str) -> Any:
        if isinstance(value, np.ndarray):
            arrays[path] = value
            return {_ARRAY: path}
        if isinstance(value, dict):
            return {name: walk(each, f"{path}/{name}" if path else name)
                    for name, each in value.items()}  # fmt: skip
        if isinstance(value, list | tuple):
            if not any(isinstance(each, np.ndarray | dict | list | tuple) for each in value):
                return list(value)  # a hundred thousand ids need no walk
            return [walk(each, f"{path}/{n}") for n, each in enumerate(value)]
        return value

    return arrays, walk(tree, "")


def unflattened(arrays: dict[str, np.ndarray], tree: State) -> State:
    """The tree that `flattened` took apart.

    >>> unflattened({"b/0": np.zeros(2)}, {"a": 1, "b": [{"array": "b/0"}]})
    {'a': 1, 'b': [array([0., 0.])]}
    """

    def walk(value: Any) -> Any:
        if isinstance(value, dict):
            if value.keys() == {_ARRAY}:
                return arrays[value[_ARRAY]]
            return {name: walk(each) for name, each in value.items()}
        if isinstance(value, list) and any(isinstance(each, dict | list) for each in value):
            return [walk(each) for each in value]
        return value

    found: State = walk(tree)
    return found


def differences(one: State, other: State) -> list[str]:
    """Paths at which two trees are not the same, bit by bit: for tests and audits."""
    (a, plain_a), (b, plain_b) = flattened(one), flattened(other)
    found = list(a.keys() ^ b.keys())
    for name in a.keys() & b.keys():
        if a[name].dtype != b[name].dtype or a[name].shape != b[name].shape:
            found.append(name)
        elif a[name].tobytes() != b[name].tobytes():
            found.append(name)
    found += _plain_differences(plain_a, plain_b, "")
    return sorted(found)


def _plain_differences(one: Any, other: Any, path: str) -> Iterator[str]:
    if isinstance(one, dict) and isinstance(other, dict):
        for name in sorted(one.keys() | other.keys(), key=str):
            where = f"{path}/{name}" if path else str(name)
            if name not in one or name not in other:
                yield where
            else:
                yield from _plain_differences(one[name], other[name], where)
    elif one != other and not (one != one and other != other):
        yield path


_ARRAY = "array"
