"""Who may ask over HTTP: tokens as settings, and as headers that known clients send."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from infra.access import is_loopback, shows
from infra.settings import Settings, SettingsError

TOKEN = "k7Jq2vXw9RtB4mZc"


def read(**environ: str) -> Settings:
    return Settings.from_env({f"FRESHREC_{k}": v for k, v in environ.items()}, dotenv=None)


def fault(**environ: str) -> str:
    with pytest.raises(SettingsError) as raised:
        read(**environ)
    return str(raised.value)


@pytest.mark.parametrize("host", ["0.0.0.0", "[::]", "10.0.0.7", "worker.example", "127.1"])
def test_an_address_that_others_reach_needs_a_token(host: str) -> None:
    said = fault(HTTP=f"{host}:8123")
    assert f"FRESHREC_HTTP='{host}:8123'" in said
    assert "FRESHREC_HTTP_TOKEN" in said and "127.0.0.1" in said
    assert read(HTTP=f"{host}:8123", HTTP_TOKEN=TOKEN).http_token == TOKEN


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "[::1]", "localhost", "LOCALHOST"])
def test_this_machine_needs_none(host: str) -> None:
    assert read(HTTP=f"{host}:8123").http_token == ""


def test_no_host_is_every_host() -> None:
    assert not is_loopback("")
    for text in (":8123", "[]:8123"):
        assert "use host:port" in fault(HTTP=text)


@pytest.mark.parametrize(
    ("token", "words"),
    [
        ("short", "it has 5 characters: use 16"),
        ("x" * 1001, "1001 characters"),
        ("sixteen or more but spaces", "no HTTP header"),
        ("umlauts-äöü-umlauts", "no HTTP header"),
    ],
)
def test_a_token_that_is_easy_to_guess_is_refused_and_not_shown(token: str, words: str) -> None:
    said = fault(HTTP_TOKEN=token)
    assert words in said and "openssl rand" in said
    assert token not in said


def test_a_file_may_hold_the_token(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    assert read(HTTP="0.0.0.0:1", HTTP_TOKEN_FILE=str(file)).http_token == TOKEN
    said = fault(HTTP_TOKEN=TOKEN, HTTP_TOKEN_FILE=str(file))
    assert "FRESHREC_HTTP_TOKEN and FRESHREC_HTTP_TOKEN_FILE are both set: remove one" in said
    assert TOKEN not in said
    file.write_text("s3cret")
    said = fault(HTTP_TOKEN_FILE=str(file))
    assert str(file) in said and "6 characters" in said and "s3cret" not in said
    file.write_bytes(b"\xff" * 40)
    assert "no token's file" in fault(HTTP_TOKEN_FILE=str(file))
    file.unlink()
    assert "cannot be read (No such file or directory)" in fault(HTTP_TOKEN_FILE=str(file))


def test_none_is_no_token() -> None:
    assert read(HTTP_TOKEN="none", HTTP_TOKEN_FILE="none") == read()
    assert "FRESHREC_HTTP_TOKEN" in fault(HTTP="0.0.0.0:1", HTTP_TOKEN="none")


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": f"Bearer {TOKEN}"},
        {"Authorization": f"bearer  {TOKEN}"},
        {"Authorization": basic("default", TOKEN)},
        {"Authorization": basic("", TOKEN)},
        {"X-ClickHouse-User": "default", "X-ClickHouse-Key": TOKEN},
    ],
)
def test_every_way_to_show_it(headers: dict[str, str]) -> None:
    assert shows(TOKEN, headers)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": ""},
        {"Authorization": TOKEN},
        {"Authorization": f"Bearer {TOKEN}x"},
        {"Authorization": f"Bearer {TOKEN[:-1]}"},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer \udcff\udcfe"},
        {"Authorization": f"Digest {TOKEN}"},
        {"Authorization": "Basic !!!"},
        {"Authorization": basic(TOKEN, "")},
        {"Authorization": basic("default", TOKEN.lower())},
        {"X-ClickHouse-Key": ""},
        {"X-ClickHouse-User": TOKEN},
    ],
)
def test_anything_else_is_not_it(headers: dict[str, str]) -> None:
    assert not shows(TOKEN, headers)
