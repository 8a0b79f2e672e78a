"""Policies to decide by: the shipped ones, or those that a test writes down; always Cedar's real answer."""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from controlplane.dev.shipped import shipped
from controlplane.policies.cedar import CedarPolicy

BASE = '@id("reviewed-entitlement") @reason("it was reviewed") permit (principal, action, resource);\n'


@lru_cache(maxsize=1)
def shipped_policy() -> CedarPolicy:
    """The shipped policies; one for all, because no ruling depends on those before it."""
    return CedarPolicy(shipped("roles") / "policies")


def policy_of(directory: Path, files: Mapping[str, str] | str) -> CedarPolicy:
    """The policies in `files`, written to `directory`; a text alone is one file of guardrails after the base permit."""
    for name, text in ({"guardrails.cedar": BASE + files} if isinstance(files, str) else files).items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return CedarPolicy(directory)
