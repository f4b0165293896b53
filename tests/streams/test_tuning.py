"""Adapting the language model to a shop: it gains and serves, or it is refused."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from encoders.text import TextEncoder
from encoders.text_config import TextConfig, TextModelError
from encoders.tuning import TuningConfig
from online.events import Event, Item
from streams.tuning import TuningError, adapt
from tests.tiny_model import tiny_model

ALPHABET = "abcdefghijklmnopqrstuvwx"
SHELVES = 4  # of six letters each: what stands on the first three goes with what is on the rest
QUICK = TuningConfig(rate=5e-3, near=0.0, dropout=0.0, temperature=0.2, epochs=8, patience=12)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model"), ALPHABET)


def shop(rng: random.Random) -> list[Item]:
    """Items whose titles share no letter with those that they go with."""
    found = []
    for shelf in range(SHELVES):
        for half in range(2):
            letters = ALPHABET[6 * shelf + 3 * half :][:3]
            titles = {"".join(rng.choices(letters, k=6)) for _ in range(40)}
            found += [Item(item_id=f"{shelf}{half}-{t}", title=t) for t in sorted(titles)[:24]]
    return found


def visits(items: list[Item], pairs: int, rng: random.Random, blindly: bool = False) -> list[Event]:
    """Two items at a time: of both halves of a shelf, or any."""
    events = []
    for n in range(pairs):
        one = rng.choice(items)
        shelf, half = one.item_id[0], one.item_id[1]
        other = [i for i in items if i.item_id[:2] == f"{shelf}{1 - int(half)}"]
        second = rng.choice(items if blindly else other)
        for k, item in enumerate((one, second)):
            events.append(
                Event(
                    event_id=f"{n}-{k}", type="view", user_id=f"u{n}", item_id=item.item_id,
                    ts=60_000 * n + k,
                )
            )  # fmt: skip
    return events


def silent(what: str, count: int, total: int, said: str) -> None:
    pass


@pytest.fixture(scope="module")
def adapter(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng, folder = random.Random(1), tmp_path_factory.mktemp("adapters") / "shop"
    items = shop(rng)
    base = TextConfig(str(tiny), device="cpu")
    report = adapt(visits(items, 700, rng), items, base, folder, QUICK, silent)
    assert report["gains"]
    (together,) = (m for m in report["measured"] if m["what"] == "co-visited items")
    assert together["low"] > 0 and together["rank"][1] < together["rank"][0]
    return folder


def test_an_adapter_brings_together_what_goes_together(tiny: Path, adapter: Path) -> None:
    def apart(model: Path) -> float:
        """How much nearer the other half of a shelf is than the other shelves."""
        encoder = TextEncoder(TextConfig(str(model), device="cpu"))
        one, other, third = encoder.encode(["abcabc", "dedefd", "mnonom"])
        return float(one @ other - one @ third)

    assert apart(adapter) > apart(tiny) + 0.1


def test_its_vectors_are_never_taken_for_the_models_own(tiny: Path, adapter: Path) -> None:
    plain = TextEncoder(TextConfig(str(tiny), device="cpu"))
    taught = TextEncoder(TextConfig(str(adapter), device="cpu"))
    version = plain.name.rpartition("@")[2]
    assert taught.name.rpartition("@")[2].startswith(f"{version}+")
    assert not np.allclose(plain.encode(["abc"]), taught.encode(["abc"]))


def test_an_adapter_of_another_model_is_refused(adapter: Path, tmp_path: Path) -> None:
    other = tiny_model(tmp_path / "other", ALPHABET + "yz")
    moved = tmp_path / "moved"
    moved.mkdir()
    for file in adapter.iterdir():
        text = file.read_bytes()
        if file.name == "adapter_config.json":
            base = text.decode().split('"base_model_name_or_path": "')[1].split('"')[0]
            text = text.replace(base.encode(), str(other).encode())
        (moved / file.name).write_bytes(text)
    with pytest.raises(TextModelError, match=r"was made for weights .*freshrec tune-text"):
        TextEncoder(TextConfig(str(moved), device="cpu"))
    (moved / "adapter_model.safetensors").unlink()
    with pytest.raises(TextModelError, match="has no adapter_model.safetensors"):
        TextEncoder(TextConfig(str(moved), device="cpu"))


def test_what_does_not_gain_is_not_written(tiny: Path, tmp_path: Path) -> None:
    rng = random.Random(2)
    items = shop(rng)
    base, folder = TextConfig(str(tiny), device="cpu"), tmp_path / "noise"
    quick = TuningConfig(rate=1e-3, epochs=1)
    report = adapt(visits(items, 700, rng, blindly=True), items, base, folder, quick, silent)
    assert not report["gains"] and not folder.exists()
    assert list(tmp_path.iterdir()) == []


def test_too_few_pairs_are_refused(tiny: Path, tmp_path: Path) -> None:
    rng = random.Random(3)
    items = shop(rng)
    base = TextConfig(str(tiny), device="cpu")
    with pytest.raises(TuningError, match=r"has 300 pairs, at least 500 are needed"):
        adapt(visits(items, 300, rng), items, base, tmp_path / "few", QUICK, silent)


def test_nothing_but_an_adapter_is_replaced(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(TuningError, match="something else than an adapter"):
        adapt([], [], TextConfig(str(tiny)), tmp_path, QUICK, silent, force=True)
