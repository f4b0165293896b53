"""Items that the sequence encoder has not learned get a vector from their texts."""

from __future__ import annotations

import numpy as np
import pytest

from online.projection import PRIOR, Projection
from online.sequence import NOWHERE, Sequences, new_sequences
from online.tables import Tables, new_tables
from online.texts import Texts, new_texts, quantised

ITEMS, WIDTH, TEXT = 400, 8, 16
COLD = np.arange(350, 400)
WARM = np.arange(350)


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def shop() -> tuple[Tables, Texts, Sequences, np.ndarray]:
    """What the encoder learned is what texts say, turned; of the cold ones it learned nothing."""
    rng = np.random.default_rng(0)
    t, x = new_tables(ITEMS, 4, 8, 64), new_texts(TEXT, ITEMS)
    q = new_sequences(WIDTH, 4, 4, ITEMS, 4, 4)
    said = unit(rng.normal(size=(ITEMS, TEXT)))
    meant = unit(said @ rng.normal(size=(TEXT, WIDTH)))
    for slot in range(ITEMS):
        x.vector[slot], x.scale[slot] = quantised(said[slot])
    t.known[:] = 1
    t.taken[WARM] = 100.0
    q.vector[WARM], q.bias[WARM] = meant[WARM], np.linspace(-1, 1, len(WARM))
    return t, x, q, meant


def test_cold_items_are_where_their_texts_say(
    shop: tuple[Tables, Texts, Sequences, np.ndarray],
) -> None:
    t, x, q, meant = shop
    cold = Projection().apply(t, x, q, ITEMS, WARM)
    assert cold.tolist() == COLD.tolist()
    assert (q.vector[COLD] * meant[COLD]).sum(1).mean() > 0.95
    assert np.allclose(np.linalg.norm(q.vector[COLD], axis=1), 1, atol=1e-5)
    assert np.allclose(q.bias[COLD], -0.8, atol=0.01)  # as one that is rarely taken


def test_what_is_said_of_nobody_or_of_a_query_has_no_vector(
    shop: tuple[Tables, Texts, Sequences, np.ndarray],
) -> None:
    t, x, q, _ = shop
    x.scale[COLD[0]], t.known[COLD[1]] = 0.0, 0
    Projection().apply(t, x, q, ITEMS, WARM)
    assert (q.bias[COLD[:2]] == NOWHERE).all() and (q.bias[COLD[2:]] != NOWHERE).all()


def test_the_less_an_item_was_taken_the_more_its_text_counts(
    shop: tuple[Tables, Texts, Sequences, np.ndarray],
) -> None:
    t, x, q, meant = shop
    projection = Projection()
    projection.apply(t, x, q, ITEMS, WARM)
    rng = np.random.default_rng(1)
    for taken in (PRIOR / 4, 40 * PRIOR):
        first = unit(rng.normal(size=(len(COLD), WIDTH)))  # as good as chance
        t.taken[COLD], q.vector[COLD], q.bias[COLD] = taken, first, 0.5
        assert not len(projection.apply(t, x, q, ITEMS, COLD))
        near_text = (q.vector[COLD] * meant[COLD]).sum(1).mean()
        near_first = (q.vector[COLD] * first).sum(1).mean()
        assert (near_text > near_first) == (taken < PRIOR)
        assert (q.bias[COLD] == 0.5).all()


def test_it_goes_on_from_its_state(shop: tuple[Tables, Texts, Sequences, np.ndarray]) -> None:
    t, x, q, _ = shop
    one, other = Projection(), Projection()
    one.apply(t, x, q, ITEMS, WARM)
    other.restore(one.state(), same=True)
    again = q._replace(vector=q.vector.copy(), bias=q.bias.copy(), inverse=q.inverse.copy())
    for each, where in ((one, q), (other, again)):
        each.apply(t, x, where, ITEMS, WARM[:50])
    assert (q.vector == again.vector).all() and (q.bias == again.bias).all()
    assert not one.is_learned(ITEMS)[COLD].any() and one.is_learned(ITEMS)[WARM].all()


def test_after_a_change_of_the_model_it_begins_anew(
    shop: tuple[Tables, Texts, Sequences, np.ndarray],
) -> None:
    t, x, q, _ = shop
    before, after = Projection(), Projection()
    before.apply(t, x, q, ITEMS, WARM)
    after.restore(before.state(), same=False)
    wider = new_texts(2 * TEXT, ITEMS)  # of another model; only a few were read so far
    for slot in (*WARM[:10], *COLD[:2]):
        wider.vector[slot], wider.scale[slot] = quantised(np.ones(2 * TEXT, np.float32))
    assert not len(after.apply(t, wider, q, ITEMS, WARM[:50]))
    assert np.isfinite(q.vector).all()
    assert not after.is_learned(ITEMS)[COLD].any()
