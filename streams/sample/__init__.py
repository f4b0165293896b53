"""The sample: 50,000 real purchases of a gift shop, with titles and prices.

Source, licence (CC BY 4.0) and what was changed: ATTRIBUTION.md beside this file.
"""

from __future__ import annotations

from pathlib import Path

_FOLDER = Path(__file__).resolve().parent

EVENTS = _FOLDER / "events.parquet"  # columns of the event record, in order of `ts`
ITEMS = _FOLDER / "items.parquet"  # columns of the item record, one row per item
ATTRIBUTION = "UCI Online Retail (Chen, Sain, Guo 2012), CC BY 4.0"
