"""A core with everything that it is made of: what serves live and what a backtest runs."""

from __future__ import annotations

from online.core import Recommender, RecommenderConfig
from streams.trainer_process import TrainerProcess


def make_core(config: RecommenderConfig) -> Recommender:
    """A recommender, and the trainer of its sequence encoder if that is on."""
    if not config.encoder.on:
        return Recommender(config)
    return Recommender(config, TrainerProcess(config.encoder, config.memory.items, config.seed))
