"""Secrets that stand in a file: found by their shapes, in values and in comments, and never quoted."""

import re
from collections.abc import Iterator
from typing import Final

from controlplane.sync.document import Place

RULE: Final = "secret-in-file"

_VALUE: Final = r"[\"']?\s*[=:]\s*[\"']?(?=[^\s\"']*\d)(?![\[{(<$])[^\s\"',}]{8,}"
_SHAPES: Final = tuple(
    (what, re.compile(shape, re.ASCII))
    for what, shape in (
        ("a private key", r"-----BEGIN [A-Z ]*PRIVATE KEY"),
        ("a token of Vault", r"\b(?:hv[sbr]\.[A-Za-z0-9_-]{20,}|[sbr]\.[A-Za-z0-9]{24,}\b)"),
        ("an access key of AWS", r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"),
        ("a token of GitHub", r"\b(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{22,})"),
        ("a token of GitLab", r"\bgl[a-z]{2,6}-[A-Za-z0-9_-]{20,}"),
        ("a token of Slack", r"\bxox[abeprs]-[A-Za-z0-9-]{10,}"),
        ("a key of Google", r"\bAIza[A-Za-z0-9_-]{35}\b"),
        ("a signed token", r"\beyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}"),
        ("a password in a URL", r"\b[a-z][a-z0-9+.-]*://[^\s/:@]*:(?!\{\{)[^\s/@]+@"),
        ("a password", rf"(?i:\b(?:password|passwd|pwd|secret|api[_-]?key|token)){_VALUE}"),
    )
)


def leaked(text: str) -> Iterator[tuple[Place, str]]:
    """Each line that looks as if it held a secret, and what to do about it."""
    likely = [(what, shape) for what, shape in _SHAPES if shape.search(text)]  # none, in nearly every file
    for number, line in enumerate(text.split("\n") if likely else (), 1):
        for what, shape in likely:
            if found := shape.search(line):
                yield (
                    Place(number, found.start() + 1),
                    f"this looks like {what}: take it out, and change it, for whoever has read the file knows it",
                )
                break
