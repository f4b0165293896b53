"""The warehouse on Debian's server over TLS, with users: what works, and what is said if not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.warehouse import WarehouseError, WarehouseUnavailable, connect
from online.step import Step
from tests.certificates import Certificates
from tests.clickhouse_server import ClickhouseServer, _binary
from tests.infra.samples import delivery, write

PASSWORD = "s%27ecret"  # s'ecret
WRONG = "hunter2-hunter2"


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, certificates: Certificates
) -> Iterator[ClickhouseServer]:
    _binary()
    made = ClickhouseServer(tmp_path_factory.mktemp("secure"), certificates)
    made.start()
    yield made
    made.stop()


def url(server: ClickhouseServer, options: str, password: str = PASSWORD) -> str:
    return f"clickhouse://shop:{password}@127.0.0.1:{server.tls}/secure?secure=true{options}"


def fault(where: str) -> WarehouseError:
    warehouse = connect(where)
    try:
        with pytest.raises(WarehouseError) as raised:
            warehouse.query("SELECT 1")
    finally:
        warehouse.close()
    assert WRONG not in str(raised.value) and "s'ecret" not in str(raised.value)
    return raised.value


def test_rows_are_written_and_read_over_tls(
    server: ClickhouseServer, certificates: Certificates
) -> None:
    warehouse = connect(url(server, f"&ca_certs={certificates.authority}"))
    warehouse.migrate()
    write(warehouse, Step(accepted=[delivery(n) for n in range(3)]))
    assert warehouse.query("SELECT count() FROM events").rows == [(3,)]
    warehouse.close()


def test_a_wrong_password_is_told_and_not_tried_again(
    server: ClickhouseServer, certificates: Certificates
) -> None:
    said = fault(url(server, f"&ca_certs={certificates.authority}", WRONG))
    assert "Wrong password for user shop" in str(said)
    assert not isinstance(said, WarehouseUnavailable)


def test_a_certificate_of_a_stranger_is_not_trusted(
    server: ClickhouseServer, certificates: Certificates
) -> None:
    for options in ("", f"&ca_certs={certificates.stranger}"):
        said = str(fault(url(server, options)))
        assert "CERTIFICATE_VERIFY_FAILED" in said
        assert "set ca_certs=/path/of/ca.pem" in said and "FRESHREC_WAREHOUSE" in said


def test_a_certificate_for_another_name_is_not_trusted(
    server: ClickhouseServer, certificates: Certificates
) -> None:
    trusted = f"&ca_certs={certificates.authority}"
    said = fault(url(server, f"{trusted}&server_hostname=other.example"))
    assert "server_hostname" in str(said)
    warehouse = connect(url(server, f"{trusted}&server_hostname=localhost"))
    assert warehouse.query("SELECT 1").rows == [(1,)]
    warehouse.close()


def test_without_verification_any_certificate_will_do(server: ClickhouseServer) -> None:
    warehouse = connect(url(server, "&verify=false"))
    assert warehouse.query("SELECT 1").rows == [(1,)]
    warehouse.close()
    assert "Wrong password" in str(fault(url(server, "&verify=false", WRONG)))


def test_the_wrong_port_of_the_two_is_told(server: ClickhouseServer) -> None:
    plain = f"clickhouse://shop:{PASSWORD}@127.0.0.1:{server.tcp}/default?timeout=5"
    said = str(fault(f"{plain}&secure=true&verify=false"))
    assert "speaks no TLS" in said and "9440" in said
    secure = plain.replace(str(server.tcp), str(server.tls))
    assert "secure are right" in str(fault(secure))


def test_an_authority_s_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(WarehouseError, match=r"ca_certs='.*no.pem' is no file: name a PEM file"):
        connect(f"clickhouse://h/d?secure=true&ca_certs={tmp_path}/no.pem")
