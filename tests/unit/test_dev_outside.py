"""What the environment puts in the place of the embedded servers, and what it does not."""

from pathlib import Path

import pytest

from controlplane.dev.home import Home
from controlplane.dev.outside import outside_target, outside_vault
from controlplane.model.errors import ConfigurationError


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    for name in ("ADDR", "TOKEN", "NAMESPACE", "CACERT", "CLIENT_CERT", "CLIENT_KEY", "SKIP_VERIFY"):
        monkeypatch.delenv(f"BAO_{name}", raising=False)
        monkeypatch.delenv(f"VAULT_{name}", raising=False)
    monkeypatch.delenv("DATABASE_URL", raising=False)
    monkeypatch.delenv("SHORTHOLD_DEV_ADDRESSES", raising=False)
    home = Home.of(tmp_path)
    home.make()
    state = home.directory / "state.json"
    state.write_text(state.read_text().replace('"ports": {}', '"ports": {"openbao": 4002, "postgres": 4003}'))
    return home


def test_without_any_variable_the_servers_are_embedded(home: Home) -> None:
    assert outside_vault(home) is None
    assert outside_target(home) is None


def test_what_dev_env_exports_still_means_the_embedded_servers(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAULT_ADDR", "http://127.0.0.1:4002")
    monkeypatch.setenv("DATABASE_URL", "postgresql://postgres@127.0.0.1:4003/orders")
    assert outside_vault(home) is None
    assert outside_target(home) is None


def test_what_dev_env_of_another_project_exported_is_not_outside_even_when_its_ports_have_moved(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    vault, database = "http://127.0.0.1:5002", "postgresql://postgres@127.0.0.1:5003/orders"
    monkeypatch.setenv("SHORTHOLD_DEV_ADDRESSES", f"http://127.0.0.1:5001 {vault} {database}")
    monkeypatch.setenv("BAO_ADDR", vault)
    monkeypatch.setenv("VAULT_ADDR", vault)
    monkeypatch.setenv("DATABASE_URL", database)
    assert outside_vault(home) is None
    assert outside_target(home) is None
    monkeypatch.setenv("DATABASE_URL", "postgresql://owner@db.example/postgres")  # named after `dev env`
    assert outside_target(home) is not None


def test_bao_addr_comes_before_vault_addr_and_wants_an_operators_token(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VAULT_ADDR", "https://vault.example:8200")
    monkeypatch.setenv("BAO_ADDR", "https://bao.example:8200")
    with pytest.raises(ConfigurationError, match="operator's token"):
        outside_vault(home)
    monkeypatch.setenv("VAULT_TOKEN", "made-up-operator-token")
    found = outside_vault(home)
    assert found is not None
    assert found.settings.addr == "https://bao.example:8200"
    assert "made-up-operator-token" not in repr(found)


def test_database_url_is_taken_apart_and_its_password_is_never_shown(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://owner:p%40ss@db.example:5433/postgres?sslmode=verify-full")
    found = outside_target(home)
    assert found is not None
    assert (found.host, found.port, found.sslmode) == ("db.example", 5433, "verify-full")
    assert found.url == "postgresql://owner@db.example:5433/orders"
    assert "p%40ss" not in repr(found)
    assert "p@ss" not in repr(found)


@pytest.mark.parametrize(
    "url", ["nonsense", "postgresql:///orders", "postgresql://u@/x?host=/run", "postgresql://h:99x/"]
)
def test_a_database_url_that_cannot_be_used_is_refused_without_repeating_it(
    home: Home, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("DATABASE_URL", url)
    with pytest.raises(ConfigurationError, match="DATABASE_URL") as refused:
        outside_target(home)
    assert url not in refused.value.detail
