"""The worker's HTTP server with a token: what is open, what is not, and the clients that pass."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Coroutine, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import clickhouse_connect
import pytest
from clickhouse_connect.driver.exceptions import DatabaseError

from infra.chdb_warehouse import ChdbWarehouse
from infra.sql_http import add_routes
from streams.http import HttpServer
from streams.sql_client import SqlClient, SqlError, worker_health
from streams.status import Status

TOKEN = "k7Jq2vXw9RtB4mZc"
BEARER = {"Authorization": f"Bearer {TOKEN}"}


class Serving:
    """The server on an event loop of its own, as in a worker."""

    def __init__(self, warehouse: ChdbWarehouse, token: str, host: str = "127.0.0.1") -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()
        self.server = self.wait(_made(warehouse, token))
        self.url = f"http://{self.wait(self.server.start(host, 0))}"

    def wait(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(30)

    def close(self) -> None:
        self.wait(self.server.stop())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()

    def get(self, path: str, **headers: str) -> tuple[int, Any, str]:
        request = urllib.request.Request(self.url + path, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=30) as said:
                return said.status, said.headers, said.read().decode()
        except urllib.error.HTTPError as said:
            return said.code, said.headers, said.read().decode()


async def _made(warehouse: ChdbWarehouse, token: str) -> HttpServer:
    status = Status()
    status.state = "ok"
    status.broker["address"] = "kafka://inner-name:9092"
    return HttpServer(status, partial(add_routes, warehouse=warehouse), token)


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChdbWarehouse]:
    made = ChdbWarehouse(tmp_path_factory.mktemp("http") / "warehouse")
    made.migrate()
    yield made
    made.close()


@pytest.fixture(scope="module")
def guarded(warehouse: ChdbWarehouse) -> Iterator[Serving]:
    made = Serving(warehouse, TOKEN, "0.0.0.0")
    yield made
    made.close()


@pytest.mark.parametrize("path", ["/metrics", "/?query=SELECT+1", "/", "/nowhere", "/ping/../"])
def test_without_the_token_nothing_is_told(guarded: Serving, path: str) -> None:
    wrong = {"Authorization": f"Bearer {TOKEN[:-1]}x"}
    for headers in ({}, wrong, {"X-ClickHouse-Key": "guess"}):
        status, said, body = guarded.get(path, **headers)
        assert (status, said["X-ClickHouse-Exception-Code"]) == (401, "516")
        assert said["WWW-Authenticate"].startswith("Basic")
        assert "FRESHREC_HTTP_TOKEN" in body and TOKEN not in body
    assert guarded.get(f"/?query=SELECT+1&password={TOKEN}")[0] == 401  # URLs end up in logs


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "HEAD"])
def test_no_method_goes_around_it(guarded: Serving, method: str) -> None:
    request = urllib.request.Request(guarded.url + "/", data=b"SELECT 1", method=method)
    with pytest.raises(urllib.error.HTTPError) as said:
        urllib.request.urlopen(request, timeout=30)
    assert said.value.code == 401


def test_with_the_token_everything_is(guarded: Serving) -> None:
    assert guarded.get("/?query=SELECT+1", **BEARER)[2] == "1\n"
    assert "freshrec_healthy 1.0" in guarded.get("/metrics", **BEARER)[2]
    assert json.loads(guarded.get("/health", **BEARER)[2])["broker"]["address"]
    key = {"X-ClickHouse-User": "ann", "X-ClickHouse-Key": TOKEN}
    assert guarded.get("/?query=SELECT+2", **key)[2] == "2\n"


def test_probes_learn_one_word_without_it(guarded: Serving) -> None:
    status, _, body = guarded.get("/health")
    assert (status, json.loads(body)) == (200, {"status": "ok"})
    assert guarded.get("/ping")[2] == "Ok.\n"


def test_the_official_client_uses_it_as_password(guarded: Serving) -> None:
    port = int(guarded.url.rpartition(":")[2])
    client = clickhouse_connect.get_client(
        host="127.0.0.1", port=port, username="any", password=TOKEN
    )
    assert client.command("SELECT 41 + 1") == 42
    client.close()
    with pytest.raises(DatabaseError, match="FRESHREC_HTTP_TOKEN"):
        clickhouse_connect.get_client(host="127.0.0.1", port=port, password="guess-guess-guess")


def test_our_own_client_shows_it_and_names_the_cure(guarded: Serving) -> None:
    assert SqlClient(guarded.url, token=TOKEN).rows("SELECT 3") == [[3]]
    for token in ("", "guess-guess-guess"):
        with pytest.raises(SqlError, match="set FRESHREC_HTTP_TOKEN") as said:
            SqlClient(guarded.url, token=token).rows("SELECT 3")
        assert "guess" not in str(said.value)
    assert worker_health(guarded.url, TOKEN)["broker"]
    assert worker_health(guarded.url, "") == {"status": "ok"}


def test_the_token_never_goes_to_a_proxy(guarded: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        proxy.settimeout(0.2)
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.getsockname()[1]}")
        monkeypatch.delenv("no_proxy", raising=False)
        assert SqlClient(guarded.url, token=TOKEN).rows("SELECT 4") == [[4]]
        with pytest.raises(TimeoutError):
            proxy.accept()


def test_with_a_token_any_name_is_served(guarded: Serving) -> None:
    """Behind a proxy or in a cluster it has other names; a web page does not have the token."""
    assert guarded.get("/?query=SELECT+1", Host="worker.shop.example", **BEARER)[0] == 200


def test_guesses_are_told_now_and_then_and_not_shown(
    warehouse: ChdbWarehouse, caplog: pytest.LogCaptureFixture
) -> None:
    serving = Serving(warehouse, TOKEN)
    try:
        with caplog.at_level(logging.WARNING, "freshrec"):
            for _ in range(5):
                serving.get("/metrics", Authorization="Bearer a-guess-of-a-stranger")
    finally:
        serving.close()
    (line,) = [r for r in caplog.records if r.getMessage() == "http_refused"]
    assert line.keys["remote"] == "127.0.0.1"
    assert "guess" not in str(line.keys)


def test_an_open_address_is_named_so_that_commands_here_reach_it(guarded: Serving) -> None:
    assert guarded.url.startswith("http://127.0.0.1:")


def test_ipv6(warehouse: ChdbWarehouse) -> None:
    if not Path("/proc/net/if_inet6").exists():
        pytest.skip("this machine has no IPv6")
    serving = Serving(warehouse, "", "::1")
    try:
        assert serving.url.startswith("http://[::1]:")
        assert SqlClient(serving.url).rows("SELECT 5") == [[5]]
    finally:
        serving.close()
