"""`--config K=V` as a typed RecommenderConfig."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from typing import Any

import msgspec

from online.core import RecommenderConfig
from online.events import EVENT_TYPES


class ConfigError(ValueError):
    """A setting of the recommender is unknown or of the wrong type. Says what is allowed."""


def recommender_config(given: Mapping[str, str], **chosen: Any) -> RecommenderConfig:
    """The default config changed by `given` (texts, typed here) and `chosen` (None: unchanged).

    >>> recommender_config({"k": "20"}, seed=7).k
    20
    """
    hints = typing.get_type_hints(RecommenderConfig)
    fields = {f.name: f for f in dataclasses.fields(RecommenderConfig) if f.init}
    values = {name: value for name, value in chosen.items() if value is not None}
    for name, text in given.items():
        if name not in fields:
            raise ConfigError(
                f"--config {name}={text}: there is no setting {name!r}; allowed are"
                f" {', '.join(sorted(fields))}"
            )
        if name in values:
            raise ConfigError(f"--config {name}={text}: it is already set by its own option")
        values[name] = _typed(name, text, hints[name])
    odd = sorted(set(values.get("targets", ())) - set(EVENT_TYPES))
    if odd:
        raise ConfigError(f"targets {', '.join(odd)}: allowed are {', '.join(EVENT_TYPES)}")
    try:
        return RecommenderConfig(**values)
    except ValueError as e:
        raise ConfigError(f"--config: {e}") from e


def _typed(name: str, text: str, kind: Any) -> Any:
    try:
        if typing.get_origin(kind) in (tuple, list):
            if text[:1] in "[(":
                parts: Any = msgspec.json.decode(text.replace("(", "[").replace(")", "]"))
            else:
                parts = [part.strip() for part in text.split(",") if part.strip()]
            return msgspec.convert(parts, kind, strict=False)
        return msgspec.convert(text, kind, strict=False)
    except msgspec.MsgspecError as e:
        wanted = getattr(kind, "__name__", str(kind))
        raise ConfigError(f"--config {name}={text}: a value of type {wanted} is needed") from e
