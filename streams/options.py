"""`--config K=V` as a typed RecommenderConfig; settings of its parts have dots: memory.users=9."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from online.core import RecommenderConfig
from online.events import EVENT_TYPES


class ConfigError(ValueError):
    """A setting of the recommender is unknown or of the wrong type. Says what is allowed."""


def setting_names(config: Any = RecommenderConfig, prefix: str = "") -> dict[str, Any]:
    """Every setting with its type; those of nested configurations with dots.

    >>> setting_names()["seed"]
    <class 'int'>
    """
    return dict(_settings(config, prefix))


def _settings(config: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    hints = typing.get_type_hints(config)
    for field in dataclasses.fields(config):
        if not field.init:
            continue
        kind = hints[field.name]
        if dataclasses.is_dataclass(kind):
            yield from _settings(kind, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}", kind


def recommender_config(given: Mapping[str, str], **chosen: Any) -> RecommenderConfig:
    """The default config changed by `given` (texts, typed here) and `chosen` (None: unchanged).

    >>> recommender_config({"k": "20"}, seed=7).k
    20
    """
    known = setting_names()
    values = {name: value for name, value in chosen.items() if value is not None}
    for name, text in given.items():
        if name not in known:
            raise ConfigError(
                f"--config {name}={text}: there is no setting {name!r}; allowed are"
                f" {', '.join(sorted(known))}"
            )
        if name in values:
            raise ConfigError(f"--config {name}={text}: it is already set by its own option")
        values[name] = _typed(name, text, known[name])
    odd = sorted(set(values.get("targets", ())) - set(EVENT_TYPES))
    if odd:
        raise ConfigError(f"targets {', '.join(odd)}: allowed are {', '.join(EVENT_TYPES)}")
    try:
        return typing.cast(RecommenderConfig, _changed(RecommenderConfig(), values))
    except ValueError as e:
        raise ConfigError(f"--config: {e}") from e


def _changed(config: Any, values: Mapping[str, Any]) -> Any:
    """`config` with other values; names with dots change what is nested in it."""
    direct = {name: value for name, value in values.items() if "." not in name}
    for part in sorted({name.split(".")[0] for name in values if "." in name}):
        inner = {n[len(part) + 1 :]: v for n, v in values.items() if n.startswith(f"{part}.")}
        direct[part] = _changed(getattr(config, part), inner)
    return dataclasses.replace(config, **direct)


def _typed(name: str, text: str, kind: Any) -> Any:
    try:
        if typing.get_origin(kind) in (tuple, list):
            parts = [part.strip() for part in text.strip("()[]").split(",") if part.strip()]
            return msgspec.convert(parts, kind, strict=False)
        return msgspec.convert(text, kind, strict=False)
    except msgspec.MsgspecError as e:
        wanted = getattr(kind, "__name__", str(kind))
        raise ConfigError(f"--config {name}={text}: a value of type {wanted} is needed") from e
