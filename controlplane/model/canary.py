"""The canary: a workload that nobody can be, which tries a new revision before anybody else may."""

from typing import Final

from controlplane.model.identity import IssuerName

ISSUER: Final = IssuerName("shorthold-canary")
SUBJECT: Final = "canary"
