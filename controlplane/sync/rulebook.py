"""Every rule that a problem can name, in a sentence: what it finds. `docs/lint.md` shows each at work.

A rule keeps its name for ever: people suppress, count and search by it.
"""

from typing import Final

PAGE: Final = "docs/lint.md"

RULES: Final = {
    # What is asked of the target.
    "over-scope.all": "ALL, or a whole kind of thing, where each thing has a name",
    "over-scope.ddl": "a statement that makes or changes tables; a task reads and writes rows",
    "over-scope.grant-option": "the right to pass a right on",
    "over-scope.public": "a right for everybody",
    "over-scope.raw": "SQL, an ACL rule or a template instead of one privilege",
    "over-scope.rights": "power over rights, by which a credential could make itself others",
    "over-scope.role": "membership in a role: what that role has, today and later",
    "over-scope.superuser": "the powers of an administrator",
    "over-scope.system": "what belongs to the target itself",
    "over-scope.wildcard": "a pattern where each thing has to be named",
    "raw-statement": "a statement that reaches the target word for word",
    "wide-scope": "a scope that opens more than its words seem to say",
    "tier-undercut": "entitlements that alone or by twos give away what another keeps for a higher tier",
    "shared-rotation": "a static secret that one entitlement replaces and another hands out, too",
    # What its tier says.
    "ttl-above-tier": "a grant that lives longer than its tier allows",
    "approval-below-tier": "fewer people who must agree than its tier demands",
    "break-glass-above-tier": "break-glass for longer than its tier allows",
    "delivery-above-tier": "a credential in the answer where its tier wants it wrapped",
    "heartbeat-above-tier": "no heartbeat, or too slow a one, for its tier",
    "revocability-below-tier": "an engine whose credentials cannot be ended as its tier demands",
    "clock-below-tier": "a target without a clock of its own where its tier demands one",
    # Whom it trusts.
    "glob-too-wide": "at tier high, a pattern that begins with * or leaves a whole segment open",
    "glob-of-everybody": "a pattern that every workload of its issuer fits",
    "glob-of-strangers": "a pattern for the owner, at an issuer where anybody can have an account",
    "any-owner": "a pattern that a fork under another owner fits",
    "any-branch": "a pattern that every branch fits",
    "any-namespace": "a pattern that an account in every namespace fits",
    "pull-request-subject": "GitHub's subject of pull requests: whoever opens one has it",
    "star-in-exact-subject": "a * outside a glob, which Vault could read as a pattern",
    "unknown-issuer": "an issuer that the settings do not have",
    "unselectable-claim": "a claim that nobody looks at",
    "network-of-everybody": "a network of every address",
    # Who answers for it.
    "missing-owner": "nobody who answers for it",
    "nobody-to-approve": "people who must agree and cannot",
    "approver-is-requester": "a workload that could agree with itself",
    "quorum-out-of-reach": "fewer people than have to agree",
    "expired-exception": "an exception that is over",
    "endless-exception": "an exception of more than a year",
    "unknown-rule": "an exception from a rule that there is not, or that nothing lifts",
    "unneeded-exception": "an exception from a rule that nothing breaks",
    "unused-intent": "an intent that nobody has named for a while",
    # The file.
    "secret-in-file": "what looks like a password, a key or a token",
    "reserved-name": "a name that Vault or our probers use",
    "unknown-mount": "an engine without a mount in the settings",
    "unknown-key": "a key that means nothing here",
    "missing-key": "a key that has to be there",
    "invalid-value": "a value that is not what has to stand there",
    "duplicate-key": "a key given twice",
    "key-not-text": "a key that is not read as text",
    "no-value": "a key without a value",
    "ambiguous": "a value that YAML reads as something else than it looks like",
    "alias": "an alias or a merge key",
    "anchor": "an anchor",
    "tag": "a tag",
    "directive": "a directive",
    "several-documents": "several documents in one file",
    "empty": "a file with nothing in it",
    "not-a-mapping": "something else than keys and values",
    "not-yaml": "what is no YAML",
    "too-deep": "more nesting than anybody reads",
    "forbidden-character": "a tab, or a character that nobody sees",
    "not-utf-8": "bytes that are no text",
    "too-large": "a file that is larger than allowed",
    "file-name": "a file that is not called like what is in it",
    "name-collision": "two files whose names differ in capitals only",
    "outside": "a link to a file outside the directory",
    "not-a-file": "something else than a regular file",
    "unreadable": "a file that cannot be read",
    # Policies.
    "no-policies": "no directory of policies",
    "unknown-entitlement": "policies for an entitlement that there is not",
    "unknown-folder": "a folder that holds no policies",
    "stale-schema": "the Cedar schema of another release",
    "not-cedar": "what is no Cedar",
    "invalid-policy": "a policy that the schema does not allow",
    "template": "a template, which decides nothing",
    "permits-everything": "a policy that permits everything",
    "missing-id": "a policy without a name",
    "invalid-id": "a name that is none",
    "duplicate-id": "two policies of one name",
    "missing-reason": "a policy without a sentence for whoever it refuses",
    "invalid-reason": "a reason of more than one line",
}
"""By name, in the order of the page."""


def page_of(rule: str) -> str:
    """Where the rule is explained, from the top of the repository."""
    return f"{PAGE}#{rule.replace('.', '')}"
