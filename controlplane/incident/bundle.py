"""The bundle: one HTML file with the page for people, the same as JSON for programs, and a signature over both.

It is one file because that is all there is to lose, swap or re-order, and HTML because whoever gets it at three in the
morning can open it (docs/adr/0038-the-report-is-one-file.md). Its last line is a compact JWS, which has the digests of
what stands before it; not one byte of the file is outside of it.
"""

import base64
import hashlib
import json
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from controlplane.model.canonical import JsonObject, canonical, instant
from controlplane.ports import Signer

CLAIM: Final = "incident_report"
"""The one name under which everything stands that is signed: so it has no claim that a login looks for."""
DATA_BEGINS: Final = b'<pre id="data" hidden>\n'
DATA_ENDS: Final = b"\n</pre>\n</body>\n</html>\n"
_SEAL_BEGINS: Final = b"<!-- signed "
_SEAL_ENDS: Final = b" -->\n"
_JWS: Final = re.compile(rb"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A bundle taken apart: the bytes of the page, those of the data, and what claims to have signed them."""

    page: bytes
    data: bytes
    signed: str


def sealed(page: str, report: JsonObject, *, incident: str, made_at: datetime, signer: Signer) -> str:
    """The whole file. `page` is a HTML document up to where the data are to stand; it has no such place itself."""
    shown, data = page.encode(), _inert(report)
    claims: JsonObject = {
        CLAIM: {
            "incident": incident,
            "made_at": instant(made_at),
            "page": hashlib.sha256(shown).hexdigest(),
            "data": hashlib.sha256(data).hexdigest(),
        }
    }
    seal = signer.sign(claims).reveal().encode()
    return b"".join((shown, DATA_BEGINS, data, DATA_ENDS, _SEAL_BEGINS, seal, _SEAL_ENDS)).decode()


def opened(content: bytes) -> Bundle | None:
    """The parts of a file; None where it is not made like a bundle, from its first to its last byte."""
    before, found, line = content.rpartition(DATA_ENDS)
    page, begun, data = before.partition(DATA_BEGINS)
    seal = line.removeprefix(_SEAL_BEGINS).removesuffix(_SEAL_ENDS)
    whole = line == _SEAL_BEGINS + seal + _SEAL_ENDS and _JWS.fullmatch(seal) is not None
    if not (found and begun and whole and _is_exact(seal)):
        return None
    return Bundle(page=page, data=data, signed=seal.decode())


def _inert(report: JsonObject) -> bytes:
    """JSON in ASCII that is the same text in HTML: nothing of it begins a tag, an entity or a comment."""
    text = json.dumps(json.loads(canonical(report)), sort_keys=True, separators=(",", ":"))
    return text.replace("<", r"\u003c").replace(">", r"\u003e").replace("&", r"\u0026").encode("ascii")


def _is_exact(seal: bytes) -> bool:
    """Whether no other text says the same: the last character of a part in base64url has bits that say nothing."""
    parts = seal.split(b".")
    try:
        read = [base64.urlsafe_b64decode(part + b"=" * (-len(part) % 4)) for part in parts]
    except ValueError:
        return False
    return [base64.urlsafe_b64encode(part).rstrip(b"=") for part in read] == parts
