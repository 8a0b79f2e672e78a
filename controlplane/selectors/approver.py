"""`approver`: somebody who agreed to the grant, by his subject."""

from controlplane.model.selection import Kept, Selector

SELECTOR = Selector(
    word="approver",
    about="the subject of somebody who agreed to it",
    example="approver=ann@acme.example",
    kept=Kept.APPROVAL,
    of_request=False,
)
