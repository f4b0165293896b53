"""The core's configuration from the settings: how memory is divided, who trains the encoder."""

from __future__ import annotations

from infra.settings import Settings
from online.core import RecommenderConfig
from online.memory import MemoryConfig
from online.teaching import EncoderConfig

# Of FRESHREC_MEMORY_MB: the rest is the program (600 MB with the engine), its buffers and caches.
TABLES_SHARE = 0.36
TRAINER_MB = 500  # the process that teaches the encoder: most of it is torch
FROM_TABLES = 0.7  # of what the encoder takes; the rest was spare (measured by bench soak)
LEAST_TABLES_MB = 120.0
SHARE_LISTS = 64  # after which the other workers are told how the rankers moved


def config_of(settings: Settings, shard: int = 0, shares: bool = False) -> RecommenderConfig:
    """shard: the first one trains the encoder; shares: there may be other workers."""
    trainer_mb = TRAINER_MB if shard == 0 else 0
    encoder_mb = trainer_mb + settings.encoder_mb if settings.encoder else 0
    return RecommenderConfig(
        k=settings.slate,
        seed=settings.seed,
        exclude_seen=settings.exclude_seen,
        memory=MemoryConfig.within(
            max(settings.memory_mb * TABLES_SHARE - encoder_mb * FROM_TABLES, LEAST_TABLES_MB)
        ),
        encoder=EncoderConfig(
            on=settings.encoder,
            states_mb=settings.encoder_mb,
            share=settings.encoder_share,
            device=settings.device,
            vectors=settings.vectors,
            start=str(settings.encoder_from or ""),
            wait=False,
            follows=shard > 0,
        ),
        share=SHARE_LISTS if shares else 0,
    )
