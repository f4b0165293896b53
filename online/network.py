"""The rankers' arithmetic, compiled: few calls, each of them long, so that a worker's event loop is
not made to wait for the interpreter lock (many short NumPy calls cost the live pipeline half its
speed). Matrix products are BLAS's, one for each list: the bits of a score do not depend on which
other lists happened to be in the batch.
"""

from __future__ import annotations

import numpy as np

from online.compiled import brief, summing


@brief
def standardise(
    raw: np.ndarray, first: int, last: int, scale: np.ndarray, offset: np.ndarray, x: np.ndarray
) -> None:
    """x[first:last] = raw * scale - offset within ±5. Shapes: raw, x (N, F); scale, offset (F,)."""
    for r in range(first, last):
        for f in range(raw.shape[1]):
            value = raw[r, f] * scale[f] - offset[f]
            x[r, f] = min(max(value, np.float32(-5.0)), np.float32(5.0))


@summing
def linear_scores(
    x: np.ndarray, first: int, last: int, weights: np.ndarray, out: np.ndarray
) -> None:
    """out[first:last] = x · weights."""
    for r in range(first, last):
        total = np.float32(0.0)
        for f in range(x.shape[1]):
            total += x[r, f] * weights[f]
        out[r] = total


@summing
def forward(
    x: np.ndarray, start: np.ndarray, w: np.ndarray, b: np.ndarray, v: np.ndarray, u: np.ndarray,
    hidden: np.ndarray, out: np.ndarray,
) -> None:  # fmt: skip
    """out = v · relu(x w + b) + u · x for the lists that `start` bounds; fills their `hidden` rows.

    Shapes: x (N, F), w (F, H), b, v (H,), u (F,), hidden (N, H), out (N,); all f4.
    """
    for e in range(len(start) - 1):
        lo, hi = start[e], start[e + 1]
        if lo == hi:
            continue
        np.dot(x[lo:hi], w, hidden[lo:hi])
        for r in range(lo, hi):
            total = np.float32(0.0)
            for k in range(len(b)):
                unit = max(hidden[r, k] + b[k], np.float32(0.0))
                hidden[r, k] = unit
                total += unit * v[k]
            for f in range(len(u)):
                total += x[r, f] * u[f]
            out[r] = total


@summing
def losses(
    x: np.ndarray, base: np.ndarray, group: np.ndarray, w: np.ndarray, b: np.ndarray,
    v: np.ndarray, u: np.ndarray, out: np.ndarray,
) -> None:  # fmt: skip
    """out[:, g]: by how much `forward` of each row falls when the features of group g, and these
    alone, are as in `base`.

    Shapes: x (N, F), base (F,), group (F,) i8, below 0 for none, out (N, G); the others as in
    `forward`, with H = 0 for what is linear. What a group adds to the hidden units is summed beside
    their whole sum, so all groups together cost about as much as one more row.
    """
    unit, without = np.empty(len(b), np.float32), np.empty((out.shape[1], len(b)), np.float32)
    for r in range(len(x)):
        unit[:], without[:, :], out[r, :] = b, np.float32(0.0), np.float32(0.0)
        for f in range(len(base)):
            for k in range(len(b)):
                unit[k] += x[r, f] * w[f, k]
            g, less = group[f], x[r, f] - base[f]
            if g < 0 or less == 0.0:  # most sources do not know most items
                continue
            out[r, g] += less * u[f]
            for k in range(len(b)):
                without[g, k] += less * w[f, k]
        for g in range(out.shape[1]):
            total = np.float32(0.0)
            for k in range(len(b)):
                left = max(unit[k] - without[g, k], np.float32(0.0))
                total += (max(unit[k], np.float32(0.0)) - left) * v[k]
            out[r, g] += total


@brief
def backward(
    x: np.ndarray, hidden: np.ndarray, slope: np.ndarray, v: np.ndarray, back: np.ndarray,
    gw: np.ndarray, gb: np.ndarray, gv: np.ndarray, gu: np.ndarray,
) -> None:  # fmt: skip
    """Gradients of the parameters; slope (N,) = d loss / d out, back (N, H) is work space."""
    gb[:] = 0.0
    gv[:] = 0.0
    gu[:] = 0.0
    for r in range(len(slope)):
        for k in range(len(v)):
            back[r, k] = slope[r] * v[k] if hidden[r, k] > 0.0 else np.float32(0.0)
            gb[k] += back[r, k]
            gv[k] += slope[r] * hidden[r, k]
        for f in range(len(gu)):
            gu[f] += slope[r] * x[r, f]
    np.dot(x.T, back, gw)


@brief
def mix(p: np.ndarray, weights: np.ndarray, first: int, last: int, out: np.ndarray) -> None:
    """out[first:last] = Σ weights[k] log p[k]. Shapes: p (K, N), weights (K,), out (N,)."""
    for r in range(first, last):
        total = np.float32(0.0)
        for k in range(len(weights)):
            total += weights[k] * np.log(p[k, r] + np.float32(1e-9))
        out[r] = total


@brief
def adam(p: np.ndarray, m: np.ndarray, v: np.ndarray, g: np.ndarray, rate: float) -> None:
    """One step of Adam (Kingma and Ba 2015) for one parameter, in place; all of the same shape.

    `rate` holds the correction for the first steps' bias already.
    """
    pf, mf, vf, gf = p.ravel(), m.ravel(), v.ravel(), g.ravel()
    step = np.float32(rate)
    for i in range(len(pf)):
        mf[i] += np.float32(0.1) * (gf[i] - mf[i])
        vf[i] += np.float32(0.001) * (gf[i] * gf[i] - vf[i])
        pf[i] -= step * mf[i] / (np.sqrt(vf[i]) + np.float32(1e-8))
