"""Settings: what is wrong is named, and no value of it is shown."""

import os
from datetime import timedelta
from pathlib import Path

import pytest

from controlplane.model.errors import ConfigurationError
from controlplane.settings import caller, load, refuse_operator_token


@pytest.fixture(autouse=True)
def empty_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("SHORTHOLD_", "BAO_", "VAULT_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("text", ["tok\n", " tok\r\n"])
def test_the_line_break_around_a_token_is_no_part_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("SHORTHOLD_TOKEN", text)
    found = caller().token
    assert found is not None
    assert found.reveal() == "tok"
    (tmp_path / "token").write_text(text)
    assert caller(token_file=tmp_path / "token").token == found


@pytest.mark.parametrize("raw", [b"hidden token", b"hidden\ntoken", b"hidden\x00", b"hidden\xff", "hiddenü".encode()])
def test_what_is_no_token_is_refused_without_showing_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raw: bytes
) -> None:
    (tmp_path / "token").write_bytes(raw)
    with pytest.raises(ConfigurationError, match="no token") as refused:
        caller(token_file=tmp_path / "token")
    assert "hidden" not in refused.value.detail
    if b"\0" not in raw:  # which no environment can hold
        monkeypatch.setenv("SHORTHOLD_TOKEN", os.fsdecode(raw))
        with pytest.raises(ConfigurationError, match="SHORTHOLD_TOKEN holds no token") as refused:
            caller()
        assert "hidden" not in refused.value.detail


def test_a_token_file_that_is_empty_or_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="nowhere"):
        caller(token_file=tmp_path / "nowhere")
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(ConfigurationError, match="empty"):
        caller(token_file=tmp_path / "empty")


def test_a_configuration_file_that_is_named_must_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load().api.port == 8700  # shorthold.toml need not exist
    for named in (tmp_path / "missing.toml", tmp_path):
        monkeypatch.setenv("SHORTHOLD_CONFIG", str(named))
        with pytest.raises(ConfigurationError) as refused:
            load()
        assert str(named) in refused.value.detail
    monkeypatch.delenv("SHORTHOLD_CONFIG")
    (tmp_path / "shorthold.toml").mkdir()
    with pytest.raises(ConfigurationError, match=r"shorthold\.toml.*not a file"):
        load()


def test_a_configuration_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "shorthold.toml").write_bytes(b'[store]\nurl = "\xff"\n')
    with pytest.raises(ConfigurationError, match=r"shorthold\.toml.*UTF-8"):
        load()


def test_a_variable_that_is_no_json_is_named_without_its_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHORTHOLD_ISSUERS", "hidden")
    with pytest.raises(ConfigurationError, match="issuers") as refused:
        load()
    assert "hidden" not in refused.value.detail


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("SHORTHOLD_TYPO", "no such setting"),
        ("SHORTHOLD_ISSUER", "SHORTHOLD_ISSUERS meant"),
        ("shorthold_isuers", "SHORTHOLD_ISSUERS meant"),
        ("SHORTHOLD_API_PORT", "joined by __"),
        ("SHORTHOLD_API__PROT", "api.prot"),
    ],
)
def test_a_variable_that_nothing_reads_is_refused_by_name_without_its_value(
    monkeypatch: pytest.MonkeyPatch, name: str, said: str
) -> None:  # A29
    monkeypatch.setenv(name, "hidden")
    with pytest.raises(ConfigurationError, match=said) as refused:
        load()
    assert "hidden" not in refused.value.detail


def test_spans_rates_and_limits_are_read_from_the_environment_as_they_are_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SHORTHOLD_API__RATE", "100/m")
    monkeypatch.setenv("SHORTHOLD_API__ENDING_RATE", "7/s")
    monkeypatch.setenv("SHORTHOLD_WORKER__TICK", "3s")
    monkeypatch.setenv("SHORTHOLD_API__PORT", "8123")
    found = load()
    assert (str(found.api.rate), str(found.api.ending_rate)) == ("100/m", "7/s")
    assert (found.worker.tick, found.api.port) == (timedelta(seconds=3), 8123)


def test_every_variable_of_the_command_line_is_known_to_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ADDR", "TOKEN", "TOKEN_FILE", "BAO_BIN", "DEV_ADDRESSES"):
        monkeypatch.setenv(f"SHORTHOLD_{name}", "x")
    monkeypatch.setenv("SHORTHOLD_API__PORT", "8701")
    assert load().api.port == 8701


@pytest.mark.parametrize("addr", ["http://bao.acme.example:8200", "http://10.0.0.1:8200", "HTTP://[fd00::1]:8200"])
def test_a_server_elsewhere_is_spoken_to_in_clear_only_where_that_is_said(
    monkeypatch: pytest.MonkeyPatch, addr: str
) -> None:  # A29, A33
    monkeypatch.setenv("BAO_ADDR", addr)
    with pytest.raises(ConfigurationError, match=r"vault\.plaintext"):
        load()
    monkeypatch.setenv("SHORTHOLD_VAULT__PLAINTEXT", "true")
    assert load().vault.addr == addr


@pytest.mark.parametrize(
    "addr", ["http://127.0.0.1:8200", "http://[::1]:8200", "http://localhost:1", "https://x.example"]
)
def test_a_server_on_this_machine_or_behind_tls_needs_no_permission(monkeypatch: pytest.MonkeyPatch, addr: str) -> None:
    monkeypatch.setenv("VAULT_ADDR", addr)
    assert load().vault.addr == addr


@pytest.mark.parametrize("name", ["BAO_TOKEN", "VAULT_TOKEN"])
def test_a_control_plane_does_not_start_with_an_operator_s_token_at_hand(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:  # A29
    refuse_operator_token()
    monkeypatch.setenv(name, "s.hidden")
    with pytest.raises(ConfigurationError, match=name) as refused:
        refuse_operator_token()
    assert "hidden" not in refused.value.detail
