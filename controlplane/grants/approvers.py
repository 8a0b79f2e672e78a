"""Who may agree to a grant: named by its entitlement, an approver by the access rules, and never the requester."""

from collections.abc import Iterable, Sequence

from controlplane.model.access import AccessRule, Role, Standing, looked_at, standing
from controlplane.model.approval import Approver, GivenApproval
from controlplane.model.entitlement import Approval
from controlplane.model.grant import Grant
from controlplane.model.identity import VerifiedClaims
from controlplane.model.matching import equals


def approver(who: VerifiedClaims, rules: Sequence[AccessRule]) -> Approver:
    """`who` as he stands now, with all that the rules look at."""
    return Approver(
        issuer=who.issuer,
        subject=who.subject,
        person=who.person,
        groups=tuple(sorted(standing(rules, who).groups)),
        claims=looked_at(rules, who),
    )


def is_named(approval: Approval, by: Approver, stands: Standing) -> bool:
    """Whether he is an approver, and one of those whom the entitlement names."""
    return Role.APPROVER in stands.roles and _among(approval.from_, by, stands.groups)


def objection(approval: Approval, grant: Grant, by: Approver, stands: Standing) -> str | None:
    """Why he may not decide on this grant although he is named; None where he may."""
    if by.names & grant.names:
        return "it is your own request, or that of somebody who is called like you: another person has to decide"
    if _among(approval.not_from, by, stands.groups):
        return "you belong to those whom the entitlement keeps from deciding on its requests"
    return None


def still_good(
    given: GivenApproval, *, digest: str, approval: Approval, grant: Grant, rules: Sequence[AccessRule]
) -> bool:
    """Whether a yes still counts: for exactly this, and from somebody who might say it by the rules of now."""
    stands = standing(rules, given.by)
    return (
        given.digest == digest
        and is_named(approval, given.by, stands)
        and objection(approval, grant, given.by, stands) is None
    )


def _among(entries: Iterable[str], by: Approver, groups: Iterable[str]) -> bool:
    his = {f"subject:{by.issuer}/{by.subject}", *(f"group:{group}" for group in groups)}
    return any(equals(entry, one) for entry in entries for one in his)
