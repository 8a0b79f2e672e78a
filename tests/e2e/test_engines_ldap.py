"""The LDIF of the ldap engine on a real OpenLDAP. OpenBao has no such engine, so the templates are filled in here."""

import secrets
from collections.abc import Callable, Generator
from typing import cast

import pytest
import yaml

from controlplane.engines import ldap, scope_models
from controlplane.testing import slapd
from controlplane.testing.slapd import SUFFIX

pytestmark = [pytest.mark.servers, pytest.mark.timeout(600)]

SCOPE = cast("ldap.LdapScope", scope_models()["ldap"].model_validate(yaml.safe_load(ldap.EXAMPLE)))
READERS = f"cn=address-readers,ou=groups,{SUFFIX}"
PEOPLE = f"ou=people,{SUFFIX}"


@pytest.fixture(scope="module")
def directory(
    tmp_path_factory: pytest.TempPathFactory, needed: Callable[[str, object], None]
) -> Generator[slapd.Slapd]:
    needed(slapd.PACKAGE, slapd.program())
    needed(slapd.TOOLS, slapd.tools())
    server = slapd.Slapd(directory=tmp_path_factory.mktemp("slapd"))
    try:
        server.start()
        yield server
    finally:
        server.stop()


class Made:
    """An account as Vault makes it: templates filled in, entries applied in order."""

    def __init__(self, directory: slapd.Slapd) -> None:
        self.directory, self.password = directory, secrets.token_urlsafe(24)
        self.username = f"sh-an-example-{secrets.token_hex(6)}"
        self.dn = f"uid={self.username},ou=agents,{SUFFIX}"
        directory.modify(self._filled(ldap.creation(SCOPE)))

    def end(self) -> None:
        # Vault goes on after an entry that fails.
        self.directory.modify(self._filled(ldap.deletion(SCOPE)), "-c")

    def _filled(self, template: str) -> str:
        return template.replace("{{.Username}}", self.username).replace("{{.Password}}", self.password)


def test_an_account_may_what_its_groups_may_and_no_more(directory: slapd.Slapd) -> None:
    made = Made(directory)
    assert directory.search(made.dn, made.password, PEOPLE) == [PEOPLE, f"uid=ann,{PEOPLE}"]
    assert directory.search(made.dn, made.password, f"ou=groups,{SUFFIX}") == []
    assert directory.members(READERS) == [made.dn]
    assert directory.members(f"cn=others,ou=groups,{SUFFIX}") == []
    made.end()


def test_when_it_ends_nobody_can_bind_and_its_membership_is_gone(directory: slapd.Slapd) -> None:
    made, other = Made(directory), Made(directory)
    made.end()
    with pytest.raises(AssertionError, match="Invalid credentials"):
        directory.search(made.dn, made.password, PEOPLE)
    assert directory.members(READERS) == [other.dn]
    assert directory.search(other.dn, other.password, PEOPLE)
    other.end()


def test_an_account_that_was_made_again_under_the_same_name_inherits_no_membership(directory: slapd.Slapd) -> None:
    made = Made(directory)
    made.end()
    entry = f"dn: {made.dn}\nobjectClass: inetOrgPerson\nuid: {made.username}\ncn: x\nsn: x\nuserPassword: again\n"
    directory.modify(entry, "-a")
    assert directory.search(made.dn, "again", PEOPLE) == []
    directory.modify(f"dn: {made.dn}\nchangetype: delete\n")
