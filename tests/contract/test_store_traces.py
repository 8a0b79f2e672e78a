"""What every store answers who looks for the grant behind something that was seen elsewhere (P10; C23)."""

from datetime import timedelta

from controlplane.model.grant import GrantId, Step, Why
from controlplane.model.lease import Accessor, Receipt
from controlplane.ports import Store
from controlplane.testing.clock import START
from controlplane.testing.store import sample_event, sample_grant

SECOND = timedelta(seconds=1)


def test_the_first_link_about_some_grants_is_found_however_many_they_are(store: Store) -> None:
    assert store.first_link([]) is None
    grants = [sample_grant(number) for number in range(1, 4)]
    for number, grant in enumerate(grants, 1):
        with store.transaction() as tx:
            tx.add(grant, sample_event(number, grant=None), sample_event(number + 10, grant=grant.id))
    assert [store.first_link([grant.id]) for grant in grants] == [2, 4, 6]
    many = [GrantId(f"gr_z{number:023d}") for number in range(1200)]
    assert store.first_link([*many, grants[2].id, grants[1].id]) == 4
    assert store.first_link(many) is None


def test_the_grant_of_an_accessor_is_found_whether_it_is_open_or_over(store: Store) -> None:
    grant = sample_grant(1)
    known = grant.but(accessor=Accessor("a-1"))
    ending = known.after(Step.END, why=Why.COMPLETED, revoking_at=START + SECOND)
    ended = ending.after(Step.CONFIRM_GONE, revoked_at=START + SECOND, receipt=Receipt(ended=()), due_at=None)
    with store.transaction() as tx:
        tx.add(grant)
    for version in (known, ending, ended):
        with store.transaction() as tx:
            tx.save(version)
        found = store.grant_of(Accessor("a-1"))
        assert found is not None
        assert (found.id, found.state) == (grant.id, version.state)
    assert store.grant_of(Accessor("a-2")) is None
