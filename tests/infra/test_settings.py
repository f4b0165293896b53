"""What an operator sees of settings: defaults that run, faults that name the cure."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.address import BrokerAddress
from infra.settings import KEYS, Settings, SettingsError


def read(**environ: str) -> Settings:
    return Settings.from_env({f"FRESHREC_{k}": v for k, v in environ.items()}, dotenv=None)


def test_defaults_need_nothing() -> None:
    settings = read()
    assert settings.broker.embedded
    assert settings.warehouse_url == f"chdb://{Path('state').absolute()}/warehouse"
    assert settings.http_host == "127.0.0.1"


def test_empty_values_mean_the_default() -> None:
    assert read(BATCH="", BROKER=" ") == read()


def test_all_faults_are_said_at_once() -> None:
    with pytest.raises(SettingsError) as raised:
        read(BATCH="many", LINGER_MS="500", HTTP="8123", PUBLISH="perhaps")
    said = str(raised.value)
    for name in ("FRESHREC_BATCH='many'", "FRESHREC_LINGER_MS='500'", "FRESHREC_HTTP", "true or"):
        assert name in said
    assert len(raised.value.faults) == 4


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("BROKER", "localhost:9092"),
        ("BROKER", "kafka://host:port"),
        ("BROKER", "kafka://a:9092,:9"),
        ("BROKER", "kafka://a:9092/topic"),
        ("BROKER", "kafka://a?security=SSL"),
        ("BROKER", "kafka://a?security_protocol=TLS"),
        ("BROKER", "kafka://a?security_protocol=SASL_SSL"),
        ("BROKER", "embedded:0"),
        ("WAREHOUSE", "chdb://relative/path"),
        ("WAREHOUSE", "postgres://host/db"),
        ("PARTITIONS", "0"),
        ("GROUP", "with space"),
        ("LOG_LEVEL", "loud"),
    ],
)
def test_wrong_values_are_refused_with_a_cure(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match="use|needs"):
        read(**{name: value})


def test_a_state_that_is_a_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "state"
    file.write_text("")
    with pytest.raises(SettingsError, match="folder"):
        read(STATE=str(file))


def test_dotenv_is_read_and_the_environment_wins(tmp_path: Path) -> None:
    dotenv = tmp_path / ".env"
    dotenv.write_text("FRESHREC_BATCH=7\nFRESHREC_SEED=3\nOTHER=1\n")
    settings = Settings.from_env({"FRESHREC_SEED": "4"}, dotenv)
    assert (settings.batch, settings.seed) == (7, 4)
    assert settings.unknown == ()


def test_a_misspelt_name_is_pointed_out() -> None:
    assert read(BATHC="5").unknown == (
        "FRESHREC_BATHC means nothing: did you mean FRESHREC_BATCH?",
    )


def test_kafka_with_credentials() -> None:
    url = "kafka://ann:p%40ss@k1:9092,k2?security_protocol=sasl_ssl&sasl_mechanism=SCRAM-SHA-512"
    broker = read(BROKER=url).broker
    assert broker.servers == ("k1:9092", "k2:9092")
    assert broker.client_options() == {
        "bootstrap_servers": ["k1:9092", "k2:9092"],
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": "ann",
        "sasl_plain_password": "p@ss",
    }


def test_passwords_are_never_shown() -> None:
    broker = BrokerAddress.parse("kafka://ann:hush@k1:9092?security_protocol=SASL_SSL")
    assert "hush" not in f"{broker} {broker!r}"
    with pytest.raises(SettingsError) as raised:
        read(BROKER="kafka://ann:hush@k1:9092?security_protocol=SSL", BATCH="0")
    assert "hush" not in str(raised.value)


def test_every_key_sets_fields_that_exist() -> None:
    for key in KEYS:
        for field in key.fields:
            assert hasattr(Settings(), field)


def test_states_that_leave_no_room_for_the_rest_are_refused() -> None:
    with pytest.raises(SettingsError, match="FRESHREC_ENCODER_MB=400: at most an eighth"):
        Settings.from_env({"FRESHREC_ENCODER_MB": "400", "FRESHREC_MEMORY_MB": "2048"}, dotenv=None)


def test_memory_that_the_parts_do_not_even_start_in_is_refused() -> None:
    with pytest.raises(SettingsError, match="at least 2048 are needed"):
        read(MEMORY_MB="1500")
    assert read(MEMORY_MB="1536", TEXT="off").memory_mb == 1536
    assert read(MEMORY_MB="1024", TEXT="off", ENCODER="off").memory_mb == 1024


def test_a_language_model_in_a_folder_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="FRESHREC_TEXT_MODEL='/no/such'.*config.json"):
        read(TEXT_MODEL="/no/such")
    assert read(TEXT_MODEL=str(tmp_path)).text_model == str(tmp_path)
    assert read(TEXT_MODEL="org/name@main").text_model == "org/name@main"


def test_the_key_of_pseudonyms_is_read_and_never_shown(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("0123456789abcdef-secret\n")
    settings = read(PSEUDONYM_KEY_FILE=str(key))
    assert settings.pseudonyms is not None and len(settings.pseudonyms.user("ann")) == 32
    assert "secret" not in repr(settings)
    assert read(PSEUDONYM_KEY_FILE="none").pseudonyms is read().pseudonyms is None


def test_a_key_file_that_is_none_is_refused_with_the_cure(tmp_path: Path) -> None:
    short = tmp_path / "short"
    short.write_text("hunter2\n")
    for path, said in (
        (short, "has a key of 7 bytes: it must hold at least 16"),
        (tmp_path / "gone", "cannot be read (No such file or directory): name a file"),
        (tmp_path, "Is a directory"),
    ):
        with pytest.raises(SettingsError) as raised:
            read(PSEUDONYM_KEY_FILE=str(path))
        assert said in str(raised.value) and "openssl rand -hex 32" in str(raised.value)
        assert "hunter2" not in str(raised.value)
