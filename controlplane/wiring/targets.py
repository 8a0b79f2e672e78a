"""Whoever asks the targets, with logins that Vault issues like everybody's."""

from collections.abc import Mapping
from datetime import timedelta

from controlplane.engines import own_probers
from controlplane.engines.dialects import dialects
from controlplane.model.canonical import JsonObject
from controlplane.model.errors import TargetUnavailableError
from controlplane.model.plan import Layout
from controlplane.model.secret import Secret
from controlplane.ports import Clock, Prober
from controlplane.probers import TargetProber, Unconfigured, prober_of
from controlplane.probers.lines.line import ProberLogin
from controlplane.probers.pki import PkiProber
from controlplane.probers.token import TokenProber
from controlplane.settings import Settings, VaultSettings
from controlplane.vault.client import VaultClient, part
from controlplane.vault.logins import VaultLogins
from controlplane.vault.prober import prober_name


def targets_of(settings: Settings, broker: VaultClient, clock: Clock) -> dict[str, TargetProber]:
    """The prober of each kind of target that there is."""
    logins = _ProberLogins(broker, settings.vault, clock)
    found: dict[str, TargetProber] = {}
    for kind in sorted({target.kind for target in settings.targets.values()}):
        of_kind = {name: target for name, target in settings.targets.items() if target.kind == kind}
        found[kind] = prober_of(kind)(of_kind, logins, clock, settings.vault.prefix)
    return found


def probers_of(
    broker: VaultClient, layout: Layout, clock: Clock, logins: VaultLogins, targets: Mapping[str, TargetProber]
) -> dict[str, Prober]:
    """Whoever can be asked, by kind of target: targets of settings, and what Vault itself shows."""
    shown = _Shown(broker, layout.mounts)
    return {
        **own_probers(shown, clock),
        **dict.fromkeys(dialects(), Unconfigured()),
        **targets,
        "pki": PkiProber(shown, clock),
        "token": TokenProber(logins.facts),
    }


class _ProberLogins:
    """The prober's own credentials, issued by Vault like everybody's."""

    def __init__(self, broker: VaultClient, vault: VaultSettings, clock: Clock) -> None:
        self._broker, self._vault, self._clock = broker, vault, clock

    def __call__(self, connection: str) -> ProberLogin:
        role = prober_name(self._vault.layout, connection)
        asked_at = self._clock.now()
        answer = self._broker.read(f"{self._vault.layout.mounts['database']}/creds/{role}")
        data = part(answer, "data")
        lifetime = (answer or {}).get("lease_duration")
        match data, lifetime:
            case {"username": str(username), "password": str(password)}, int(seconds):
                return ProberLogin(
                    username=username,
                    password=Secret(password),
                    renew_at=asked_at + timedelta(seconds=seconds) * 2 / 3,
                )
            case _:
                raise TargetUnavailableError(f"Vault has no prober login for {connection}")


class _Shown:
    """What the mount of an engine shows to everybody: an authority its issuers, their CRLs, certificates by serial."""

    def __init__(self, broker: VaultClient, mounts: Mapping[str, str]) -> None:
        self._broker, self._mounts = broker, mounts

    def __call__(self, name: str, path: str) -> JsonObject | None:
        answer = self._broker.read(f"{self._mounts[name]}/{path}")
        return None if answer is None else part(answer, "data")
