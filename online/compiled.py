"""How the core's inner loops are compiled, and where the machine code is kept.

Numba looks only at the file of a function when it decides whether kept code is still good, but the
code holds what was inlined from other files too. So the folder is named after all of them.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import numba

_HERE = Path(__file__).parent
UNMARKED = ("tables.py", "compiled.py", "events.py")  # whose values are in the code, too
_MARKS = tuple(f"\n@{name}\n" for name in ("compiled", "brief", "summing", "fused"))


def _digest() -> str:
    total = hashlib.blake2b(digest_size=8)
    total.update(os.environ.get("NUMBA_BOUNDSCHECK", "").encode())
    for path in sorted(_HERE.glob("*.py")):
        source = path.read_text(encoding="utf-8")
        if any(mark in source for mark in _MARKS) or path.name in UNMARKED:
            total.update(source.encode())
    return total.hexdigest()


_kept = _HERE / "__pycache__"
if os.access(_kept if _kept.exists() else _HERE, os.W_OK):
    # Elsewhere (a read-only install) numba's own choice, the user's cache folder, is as good.
    vars(numba.config)["CACHE_DIR"] = str(_kept / f"compiled-{_digest()}")

# NumPy's rules for division (inf, no exception) save a branch for each.
# `compiled` lets the event loop and the warehouse run meanwhile. `brief` is for what Python calls
# often and what takes well under a millisecond: to come back costs a wait for the interpreter lock,
# and with two dozen such calls a block the live pipeline reached only half the backtest's rate.
# `summing` is for what adds up long rows: a sum may be kept in several lanes, which takes half the
# time. Each row is still added up alike, whatever lies beside it; another kind of processor may
# differ in the last bits, as its BLAS does. `fused` multiplies and adds in one step, in the order
# that is written.
compiled: Any = numba.njit(cache=True, nogil=True, error_model="numpy")
brief: Any = numba.njit(cache=True, nogil=False, error_model="numpy")
_LANES = {"reassoc", "contract"}
summing: Any = numba.njit(cache=True, nogil=False, error_model="numpy", fastmath=_LANES)
fused: Any = numba.njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
