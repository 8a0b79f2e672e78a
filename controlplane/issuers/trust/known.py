"""What entitlements can say of a configured issuer: for whoever reads them before any token comes."""

from collections.abc import Iterable, Mapping

from controlplane.issuers import kinds
from controlplane.issuers.trust.options import IssuerOptions
from controlplane.model.identity import IssuerName, KnownIssuer


def known(configured: Iterable[IssuerOptions]) -> Mapping[str, KnownIssuer]:
    """The issuers of the settings, by name."""
    return {options.name: _known(options) for options in configured}


def _known(options: IssuerOptions) -> KnownIssuer:
    table = kinds()[options.kind].claims
    told = frozenset(path for path, claim in table.items() if not claim.ignored)
    return KnownIssuer(
        name=IssuerName(options.name),
        kind=options.kind,
        selectable=None if options.claims is None else told | frozenset(options.claims),
        ignored={path: claim.ignored for path, claim in table.items() if claim.ignored},
        open_to_all=options.open_to_all,
    )
