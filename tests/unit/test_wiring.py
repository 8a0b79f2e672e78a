"""A control plane that cannot start makes nothing: no key, no store."""

from pathlib import Path

import pytest

from controlplane.issuers.oidc import OidcOptions
from controlplane.keys.files import load_or_create
from controlplane.model.errors import ConfigurationError, StoreUnavailableError
from controlplane.settings import KeysSettings, Settings, StoreSettings, VaultIdentity, VaultSettings
from controlplane.wiring.errands import sync_roles
from controlplane.wiring.plane import wire


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    load_or_create(tmp_path / "broker.pem")
    broker = VaultIdentity(mount="shorthold-broker", role="broker", key_file=tmp_path / "broker.pem")
    return Settings(
        store=StoreSettings(url=f"sqlite:///{tmp_path / 'shorthold.db'}"),
        keys=KeysSettings(directory=tmp_path / "keys"),
        vault=VaultSettings(broker=broker),
    )


def test_what_is_wrong_is_said_before_any_key_or_store_is_made(settings: Settings, tmp_path: Path) -> None:
    nowhere = tmp_path / "none.json"
    issuer = OidcOptions(name="somebody", url="https://x.example", audiences=("y",), jwks_file=nowhere)
    elsewhere = VaultIdentity(mount="shorthold-broker", role="broker", key_file=tmp_path / "other.pem")
    for wrong, said in (
        ({"vault": VaultSettings()}, "vault.broker"),
        ({"vault": VaultSettings(broker=elsewhere)}, "vault bootstrap"),
        ({"issuers": (issuer,)}, "none.json"),
    ):
        with pytest.raises(ConfigurationError, match=said):
            wire(settings.model_copy(update=wrong))
    assert [path.name for path in tmp_path.iterdir()] == ["broker.pem"]


def test_a_store_that_cannot_be_read_gets_no_key(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "shorthold.db").write_text("no database at all")
    with pytest.raises(StoreUnavailableError):
        wire(settings)
    assert not (tmp_path / "keys").exists()


def test_a_store_that_lost_its_audit_key_gets_no_other(settings: Settings, tmp_path: Path) -> None:
    wire(settings).close()
    key = tmp_path / "keys" / "audit.key"
    kept = key.rename(tmp_path / "kept")
    with pytest.raises(ConfigurationError, match="put it back"):
        wire(settings)
    assert not key.exists()
    kept.rename(key)
    wire(settings).close()


def test_sync_without_any_identity_says_what_would_do(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BAO_TOKEN", "VAULT_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigurationError, match="BAO_TOKEN or VAULT_TOKEN"):
        sync_roles(VaultSettings())
