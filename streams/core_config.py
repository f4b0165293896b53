"""The core's configuration from the settings: how memory is divided, who trains the encoder."""

from __future__ import annotations

from encoders.text_config import TextConfig as LanguageConfig
from infra.settings import Settings
from online.core import RecommenderConfig
from online.memory import MemoryConfig
from online.teaching import EncoderConfig
from online.texts import TextConfig

# Of FRESHREC_MEMORY_MB: the rest is the program (600 MB with the engine), its buffers and caches.
TABLES_SHARE = 0.36
TRAINER_MB = 500  # the process that teaches the encoder: most of it is torch
FROM_TABLES = 0.7  # of what the encoder takes; the rest was spare (measured by bench soak)
LEAST_TABLES_MB = 120.0
SHARE_LISTS = 64  # after which the other workers are told how the rankers moved


TEXT_MB = 450  # the language model's process: most of it is torch


def config_of(
    settings: Settings, shard: int = 0, shares: bool = False, text: TextConfig = TextConfig()
) -> RecommenderConfig:
    """shard: the first one trains the encoder; shares: there may be other workers; text: what the
    language model makes."""
    trainer_mb = TRAINER_MB if shard == 0 else 0
    encoder_mb = trainer_mb + settings.encoder_mb if settings.encoder else 0
    parts_mb = encoder_mb + (TEXT_MB if text.on else 0)
    return RecommenderConfig(
        k=settings.slate,
        seed=settings.seed,
        exclude_seen=settings.exclude_seen,
        memory=MemoryConfig.within(
            max(settings.memory_mb * TABLES_SHARE - parts_mb * FROM_TABLES, LEAST_TABLES_MB),
            text.width,
        ),
        text=text,
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


def text_config(settings: Settings) -> LanguageConfig:
    """Which language model, and where it computes."""
    model, revision = settings.text_model, ""
    if not model.startswith(("/", ".")) and "@" in model:
        model, _, revision = model.partition("@")
    return LanguageConfig(model=model, revision=revision, device=settings.device)
