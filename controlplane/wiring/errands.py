"""What a command does at Vault without a whole control plane."""

import time
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from controlplane.incident.direct import CutDirect
from controlplane.keys.files import load
from controlplane.model.secret import Secret
from controlplane.ports import Clock, Roles
from controlplane.probers import TargetProber, Weighs
from controlplane.settings import Settings, VaultIdentity, VaultSettings, server_token
from controlplane.sync.drift import Expected, FindDrift
from controlplane.vault.capabilities import ServerFacts, look
from controlplane.vault.client import VaultClient
from controlplane.vault.leases import VaultLeases
from controlplane.vault.lookout import VaultLookout
from controlplane.vault.policies import IDENTITIES, identity_name
from controlplane.vault.roles import VaultRoles
from controlplane.vault.sight import VaultSight
from controlplane.vault.softness import VaultSoftness
from controlplane.vault.transport import TokenSource
from controlplane.wiring.identities import TASK_KEY, always, server_of, session_of, sync_client
from controlplane.wiring.targets import targets_of
from controlplane.world import SystemClock, Threads

_AT_ONCE: Final = 16
"""Calls to Vault that a cut without a control plane makes at once."""


def sync_roles(vault: VaultSettings) -> Roles:
    """Vault's configuration as `sync` sees it: with the operator's token where there is one, else as `sync`.

    Raises: ConfigurationError: there is neither.
    """
    return VaultRoles(vault.layout, sync_client(vault))


def server_facts(vault: VaultSettings, engines: Iterable[str]) -> ServerFacts:
    """What the server is and can, as whoever syncs sees it; `engines` are those that entitlements need.

    Raises: ConfigurationError: there is nobody to ask as. VaultRefusedError, VaultUnavailableError: it does not say.
    """
    client = sync_client(vault)
    try:
        return look(client, vault.layout, engines)
    finally:
        client.close()


@contextmanager
def direct_cut(vault: VaultSettings, token: Secret) -> Generator[CutDirect]:
    """What cuts with nothing but a responder's token, for as long as the block lasts."""
    client, threads = VaultClient(server_of(vault), always(token)), Threads(_AT_ONCE)
    try:
        yield CutDirect(
            # Whoever has no settings does not know the mounts: then the token's own rights tell where to look.
            sight=VaultSight(vault.layout, client, threads, every="mounts" not in vault.model_fields_set),
            leases=VaultLeases(client, patience=vault.timeout),
            meanwhile=threads,
            pause=lambda span: time.sleep(span.total_seconds()),
            settling=vault.issuing_within + vault.timeout + vault.max_request_duration,
        )
    finally:
        threads.close()
        client.close()


def responder_token(vault: VaultSettings, key_file: Path) -> Secret:
    """A Vault token of the identity `responder`, for whoever holds its key.

    Raises: ConfigurationError: no such key; VaultRefusedError, VaultUnavailableError.
    """
    identity = VaultIdentity(mount=identity_name(vault.layout, "responder"), role="responder", key_file=key_file)
    session = session_of(vault, identity, "vault.responder", SystemClock())
    try:
        return session()
    finally:
        session.close()


@contextmanager
def drift_finder(settings: Settings) -> Generator[FindDrift]:
    """What looks for drift once, for as long as the block lasts.

    With the operator's token where there is one, else as `vault.drift`, else as `vault.sync`, which sees less. Targets
    are asked where the broker's prober can log in.

    Raises: ConfigurationError: there is no identity to look as.
    """
    given, operator, clock = settings.vault, server_token(), SystemClock()
    if operator is not None:
        token: TokenSource = always(operator)
    else:
        token = session_of(given, given.drift or given.sync, "vault.drift" if given.drift else "vault.sync", clock)
    reader = VaultClient(server_of(given), token)
    broker = None
    if given.broker is not None and given.broker.key_file.exists():
        broker = VaultClient(server_of(given), session_of(given, given.broker, "vault.broker", clock))
    probers = {} if broker is None else targets_of(settings, broker, clock)
    try:
        yield finder_of(settings, reader, probers)
    finally:
        for prober in probers.values():
            prober.close()
        for client in (reader, broker):
            if client is not None:
                client.close()


def finder_of(settings: Settings, reader: VaultClient, probers: Mapping[str, TargetProber]) -> FindDrift:
    """What looks for drift with `reader` at Vault, and by those `probers` that see how much power somebody has."""
    layout = settings.vault.layout
    weighs = {
        name: prober
        for name, target in settings.targets.items()
        if isinstance(prober := probers.get(target.kind), Weighs)
    }
    excess = {name: prober.excess for name, prober in weighs.items()}
    given = {name: prober.given for name, prober in weighs.items()}
    vault = settings.vault
    own = {
        "broker": vault.broker,
        "sync": vault.sync,
        "drift": vault.drift,
        "param": vault.param,
        "rotate": vault.rotate,
    }
    files = {identity_name(layout, name): identity.key_file for name, identity in own.items() if identity is not None}
    files[layout.auth_mount] = settings.keys.directory / TASK_KEY
    keys = {mount: load(file).public_pem for mount, file in files.items() if file.exists()}
    targets = {
        name: (target.host, target.port, str(getattr(target, "database", "")))
        for name, target in settings.targets.items()
        if target.kind == "postgresql"
    }
    return FindDrift(
        look=VaultLookout(layout, reader, excess, given),
        layout=layout,
        expected=Expected(
            keys=keys,
            targets=targets,
            own_policies=frozenset(identity_name(layout, name) for name in IDENTITIES),
            known=settings.drift.known,
        ),
    )


def drift_reader(vault: VaultSettings, clock: Clock) -> VaultClient:
    """Reads what the identity `drift` may. Raises: ConfigurationError: there is none."""
    return VaultClient(server_of(vault), session_of(vault, vault.drift, "vault.drift", clock))


def softness_of(settings: Settings, clock: Clock) -> VaultSoftness | None:
    """What sees which roles leave sessions open; None where there is no identity that may read them."""
    drift = settings.vault.drift
    if drift is None or not drift.key_file.exists():
        return None
    kinds = {name: target.kind for name, target in settings.targets.items()}
    return VaultSoftness(settings.vault.layout, drift_reader(settings.vault, clock), kinds)
