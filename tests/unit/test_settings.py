"""Settings: what is wrong is named, and no value of it is shown."""

import os
from pathlib import Path

import pytest

from controlplane.model.errors import ConfigurationError
from controlplane.settings import caller, load


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
