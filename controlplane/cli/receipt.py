"""`shorthold grant verify-receipt`: whether a receipt is what the control plane signed, offline if need be."""

import json
import re
import sys
from pathlib import Path
from typing import Any, Final, cast

import click

from controlplane.cli.output import output_option, say, show
from controlplane.cli.statuses import RESIDUAL
from controlplane.model.errors import ConfigurationError, ReceiptBrokenError

_GRANT: Final = re.compile(r"gr_[a-z2-7]{24}")
_LARGEST: Final = 1024 * 1024

keys_option = click.option(
    "--keys",
    type=click.Path(path_type=Path),
    default=None,
    help="A JWK set, or a public key in PEM; asked of the control plane otherwise.",
)


@click.command(name="verify-receipt")
@click.argument("what", metavar="FILE|ID")
@keys_option
@output_option
def verify_receipt(what: str, keys: Path | None, output: str) -> None:
    """Check the signature of a receipt and print what was signed.

    FILE is what `grant show -o json` printed, or the bare receipt; an ID is asked for. With FILE and --keys nothing is
    asked of anybody. Exit status: 0 signed and verified gone, 2 not signed by these keys, 5 signed, but not everything
    is verified gone.

    \b
    Examples:
      shorthold grant show gr_... -o json > grant.json
      shorthold grant verify-receipt grant.json --keys jwks.json
    """  # noqa: D301 # \b is click's mark for a block that keeps its lines
    from controlplane.keys.receipts import public_keys, verified

    known = read(keys) if keys is not None else None  # what is wrong on this machine is told before anybody is asked
    grant, signed = _asked(what) if _GRANT.fullmatch(what) else _given(read(Path(what)))
    told = verified(signed, public_keys(known if known is not None else published()))
    if grant is not None and told.get("grant") != grant:
        raise ReceiptBrokenError(f"it is the receipt of {told.get('grant')}, and not of {grant}")
    show(dict(told) if output != "table" else _flat(dict(told)), output)
    if told.get("verified") is not True:
        say("The signature is right. Not everything was verified gone: look at the evidence.")
        sys.exit(RESIDUAL)
    say("The signature is right, and everything is verified gone.")


def _asked(id: str) -> tuple[str | None, str]:
    from controlplane.sdk.client import Shorthold
    from controlplane.settings import caller

    me = caller()
    with Shorthold(me.addr, lambda: me.token) as client:
        return _of_grant(client.show(id)["grant"])


def published() -> str:
    """The public keys that the control plane tells everybody, as a JWK set."""
    from controlplane.sdk.client import Shorthold
    from controlplane.settings import caller

    with Shorthold(caller().addr, lambda: None) as client:
        return json.dumps(client.keys())


def _given(content: str) -> tuple[str | None, str]:
    """The grant that a file is about, where it says so, and the JWS in it."""
    text = content.strip()
    if not text.startswith("{"):
        return None, text
    try:
        told = cast("dict[str, Any]", json.loads(text))
    except (ValueError, RecursionError):
        raise ReceiptBrokenError("the file holds neither JSON nor a receipt") from None
    return _of_grant(told.get("grant", told))


def _of_grant(told: object) -> tuple[str | None, str]:
    match told:
        case {"id": str(id), "receipt": {"signed": str(signed)}}:
            return id, signed
        case {"id": str(id), "state": str(state)}:
            raise ReceiptBrokenError(f"{id} has no signed receipt: it is {state}")
        case _:
            raise ReceiptBrokenError("the file holds no grant with a signed receipt")


def read(path: Path) -> str:
    """A small text file. Raises: ConfigurationError: it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(_LARGEST).decode("utf-8", errors="replace")
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from None


def _flat(told: dict[str, Any]) -> dict[str, Any]:
    flat = {name: value for name, value in told.items() if name != "ended"}
    for number, end in enumerate(told.get("ended", ()), 1):
        flat[f"end {number}"] = f"{end['evidence']} ({end['method']}, {end['at']})"
    return flat
