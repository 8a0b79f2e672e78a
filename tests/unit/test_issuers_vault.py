"""Vault and OpenBao as an issuer: entities, and the one address of identity tokens (C2, C3)."""

import pytest

from controlplane.issuers import vault
from controlplane.testing.kinds import VAULT, Sample, sample


@pytest.mark.parametrize("subject", ["agent", "5c1a9b1d", VAULT["sub"].upper(), f"{VAULT['sub']} "])
def test_a_vault_subject_is_the_id_of_an_entity(subject: str) -> None:
    assert "entity" in sample("vault").refusal(sub=subject)


@pytest.mark.parametrize(
    "url",
    ["https://bao.example", "https://bao.example/v1/identity/oidc/", "https://bao.example/v1/identity/oidc/provider/x"],
)
def test_a_vault_issuer_is_the_one_of_identity_tokens(url: str) -> None:
    with pytest.raises(ValueError, match="url"):
        Sample(vault.KIND, VAULT, url)
    assert Sample(vault.KIND, VAULT, "https://bao.example/v1/team/a/identity/oidc").proves()
