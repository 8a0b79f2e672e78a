"""The configuration that `dev up` writes is what the settings read."""

from datetime import timedelta
from pathlib import Path

import pytest

from controlplane.dev.configuration import configuration_file, policies_directory, write_configuration
from controlplane.dev.home import Home
from controlplane.dev.outside import Target
from controlplane.dev.shipped import code_digest, shipped
from controlplane.dev.stack import LAYOUT
from controlplane.model.access import Role
from controlplane.model.errors import ConfigurationError
from controlplane.model.secret import Secret
from controlplane.settings import VaultSettings, load

HOSTILE = "a b'\"\\$ü[x]=#😀"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    path = tmp_path / HOSTILE
    path.mkdir()
    return path


def test_the_settings_read_back_every_path_and_address(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = _home(project)
    assert _write(home, project)
    monkeypatch.setenv("SHORTHOLD_CONFIG", str(configuration_file(home)))
    for name in ("BAO_ADDR", "VAULT_ADDR", "BAO_NAMESPACE", "VAULT_NAMESPACE"):
        monkeypatch.delenv(name, raising=False)
    settings = load()
    assert settings.api.port == 4001
    assert settings.vault.addr == "http://127.0.0.1:4002"
    assert settings.vault.max_request_duration == timedelta(seconds=10)
    assert settings.vault.layout == LAYOUT
    assert settings.vault.broker is not None
    assert settings.vault.broker.key_file == home.directory / "keys" / "broker.pem"
    assert settings.keys.directory == home.directory / "keys"
    assert settings.targets["orders"].port == 4003
    assert settings.issuers[0].url == "http://127.0.0.1:4004"
    assert [rule.subject for rule in settings.access if "auditor" in rule.roles] == ["auditor", None]
    assert [rule.claims["role"] for rule in settings.access if rule.subject is None] == [role.value for role in Role]
    assert settings.roles.name == "roles"
    assert configuration_file(home).stat().st_mode & 0o777 == 0o600
    assert "owners-password" not in configuration_file(home).read_text()


def test_it_says_whether_anything_changed_and_takes_the_projects_own_roles(project: Path) -> None:
    home = _home(project)
    assert _write(home, project)
    assert not _write(home, project)
    (project / "roles").mkdir()
    assert _write(home, project)
    assert policies_directory(project) == shipped("roles") / "policies"
    (project / "roles" / "policies").mkdir()
    assert _write(home, project)
    assert policies_directory(project) == project / "roles" / "policies"


def test_other_code_is_another_configuration(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = _home(project)
    _write(home, project)
    monkeypatch.setattr("controlplane.dev.configuration.code_digest", lambda: "0" * 16)
    assert _write(home, project)


def test_the_code_is_told_by_what_stands_in_its_files(tmp_path: Path) -> None:
    (tmp_path / "deeper").mkdir()
    source = tmp_path / "deeper" / "module.py"
    source.write_text("1")
    first = code_digest(tmp_path)
    assert code_digest(tmp_path) == first
    source.write_text("2")
    second = code_digest(tmp_path)
    source.rename(tmp_path / "module.py")
    assert len({first, second, code_digest(tmp_path)}) == 3


def test_a_path_that_no_configuration_file_can_hold_is_refused(tmp_path: Path) -> None:
    project = tmp_path / "a\x7fb"
    project.mkdir()
    home = _home(project)
    with pytest.raises(ConfigurationError, match="characters"):
        _write(home, project)


def _home(project: Path) -> Home:
    home = Home.of(project)
    home.make()
    state = home.directory / "state.json"
    state.write_text(state.read_text().replace('"ports": {}', '"ports": {"serve": 4001}'))
    return home


def _write(home: Home, project: Path) -> bool:
    target = Target(
        host="127.0.0.1", port=4003, sslmode="disable", owner=Secret("user=postgres password=owners-password")
    )
    vault = VaultSettings(addr="http://127.0.0.1:4002", max_request_duration=timedelta(seconds=10))
    return write_configuration(
        home, project, vault=vault, layout=LAYOUT, target=target, issuer_url="http://127.0.0.1:4004"
    )
