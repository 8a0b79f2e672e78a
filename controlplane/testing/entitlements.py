"""An entitlement to try things on: sound as it is, and anything else by naming what shall differ."""

from controlplane.engines import engines, scope_models
from controlplane.model.entitlement import Entitlement
from controlplane.model.plan import Compiled, Layout
from controlplane.sync.compile import compiled

LAYOUT = Layout(mounts={"database": "database", "pki": "pki"})

_SOUND = {
    "entitlement": "orders-read",
    "owner": "team-sales@acme.example",
    "purpose": "Read orders.",
    "intents": ["answer-question"],
    "risk": "low",
    "eligibility": [{"issuer": "dev", "subject": "repo:acme/agent:ref:refs/heads/main"}],
    "scopes": [
        {
            "name": "orders",
            "engine": "database",
            "connection": "orders",
            "privileges": ["select on table sales.orders"],
        }
    ],
    "ttl": {"default": "5m", "max": "15m"},
}


def document(**changes: object) -> dict[str, object]:
    """The same as it would stand in a file."""
    return _SOUND | changes


def entitlement(**changes: object) -> Entitlement:
    """The entitlement with top-level keys as in `changes`.

    Raises: pydantic.ValidationError: what differs is not sound.
    """
    return Entitlement.model_validate(_SOUND | changes, context={"engines": scope_models()})


def compiled_entitlement(layout: Layout = LAYOUT, **changes: object) -> Compiled:
    """The same, compiled."""
    return compiled(entitlement(**changes), layout, engines())
