"""Debian's clickhouse-server as a child process of the tests, on free ports, in its own folder."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from clickhouse_driver import Client

from tests.certificates import Certificates

_CONFIG = """<yandex>
  <logger><level>warning</level><log>{folder}/server.log</log>
    <errorlog>{folder}/error.log</errorlog></logger>
  <http_port>{http}</http_port><tcp_port>{tcp}</tcp_port>
  <interserver_http_port>{interserver}</interserver_http_port>
  <listen_host>127.0.0.1</listen_host>
  <path>{folder}/store/</path><tmp_path>{folder}/tmp/</tmp_path>
  <users_config>{folder}/users.xml</users_config>
  <default_profile>default</default_profile><default_database>default</default_database>
  <mark_cache_size>16777216</mark_cache_size><timezone>UTC</timezone>{secure}
</yandex>"""
_SECURE = """
  <tcp_port_secure>{port}</tcp_port_secure>
  <openSSL><server><certificateFile>{certificate}</certificateFile>
    <privateKeyFile>{key}</privateKeyFile><verificationMode>none</verificationMode>
    <loadDefaultCAFile>false</loadDefaultCAFile><disableProtocols>sslv2,sslv3</disableProtocols>
  </server></openSSL>"""
_USERS = """<yandex>
  <profiles><default><max_memory_usage>1000000000</max_memory_usage>
    <max_threads>2</max_threads></default></profiles>
  <users>
    <default><password></password><networks><ip>127.0.0.1</ip></networks>
      <profile>default</profile><quota>default</quota></default>
    <shop><password>s'ecret</password><networks><ip>127.0.0.1</ip></networks>
      <profile>default</profile><quota>default</quota></shop>
  </users>
  <quotas><default><interval><duration>3600</duration><queries>0</queries><errors>0</errors>
    <result_rows>0</result_rows><read_rows>0</read_rows><execution_time>0</execution_time>
  </interval></default></quotas>
</yandex>"""
_START_S = 30


def _binary() -> str:
    found = shutil.which("clickhouse-server", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if found is None:
        cure = "clickhouse-server is not installed: apt-get install clickhouse-server"
        if os.environ.get("CI") == "true":
            pytest.fail(cure)
        pytest.skip(cure)
    return found


def _free_ports(count: int) -> list[int]:
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in held]
    for s in held:
        s.close()
    return ports


class ClickhouseServer:
    """The child; `start` and `stop` may be called again, on the same ports and folder."""

    def __init__(self, folder: Path, certificates: Certificates | None = None) -> None:
        """With `certificates` it also takes connections over TLS, on the port `tls`."""
        self.folder = folder
        self.tcp, self.http, self.interserver, self.tls = _free_ports(4)
        secure = ""
        if certificates is not None:
            files = {"certificate": certificates.certificate, "key": certificates.key}
            secure = _SECURE.format(port=self.tls, **files)
        self._process: subprocess.Popen[bytes] | None = None
        for name in ("store", "tmp"):
            (folder / name).mkdir(parents=True)
        ports = {"tcp": self.tcp, "http": self.http, "interserver": self.interserver}
        (folder / "config.xml").write_text(_CONFIG.format(folder=folder, secure=secure, **ports))
        (folder / "users.xml").write_text(_USERS)

    def url(self, database: str = "default", user: str = "default", password: str = "") -> str:
        return f"clickhouse://{user}:{password}@127.0.0.1:{self.tcp}/{database}"

    def start(self) -> None:
        with (self.folder / "output.log").open("ab") as output:
            self._process = subprocess.Popen(
                [_binary(), f"--config-file={self.folder}/config.xml"],
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
                cwd=self.folder,
            )
        deadline = time.monotonic() + _START_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                said = (self.folder / "output.log").read_text(errors="replace")[-2000:]
                self.stop()
                pytest.fail(f"clickhouse-server did not start: {said}")
            time.sleep(0.1)

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def signal(self, number: int) -> None:
        """SIGSTOP freezes it, SIGCONT lets it go on."""
        assert self._process is not None
        self._process.send_signal(number)

    def run(self, sql: str) -> object:
        client = Client("127.0.0.1", self.tcp)
        try:
            return client.execute(sql)
        finally:
            client.disconnect()

    def _answers(self) -> bool:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", self.tcp), 1).close()
            return self.run("SELECT 1") == [(1,)]
        return False


@pytest.fixture(scope="session")
def clickhouse_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickhouseServer]:
    """Debian's server, started once. Skips where it is not installed, and fails there in CI."""
    _binary()
    server = ClickhouseServer(tmp_path_factory.mktemp("clickhouse"))
    server.start()
    yield server
    server.stop()
