"""Ask a certificate authority whether a certificate is revoked: the CRL that its issuer signed must say so."""

from collections.abc import Callable
from datetime import datetime

from cryptography import x509

from controlplane.model.canonical import JsonObject
from controlplane.model.errors import TargetUnavailableError
from controlplane.model.lease import Evidence, Target
from controlplane.ports import Clock


class PkiProber:
    """Fits `ports.Prober`. `fetch(mount, path)` is the data at a public path of the authority, None where none is."""

    def __init__(self, fetch: Callable[[str, str], JsonObject | None], clock: Clock) -> None:
        self._fetch = fetch
        self._clock = clock

    def ask(self, target: Target, principal: str, *, issued_at: datetime) -> Evidence:
        """Whether the CRL of its own issuer, signed by it, lists the serial `principal`, or it has run out.

        Raises: TargetUnavailableError: no certificate, no CRL, or one that its issuer did not sign.
        Source: RFC 5280 5; OpenBao docs, api/secret/pki, "Read issuer CRL".
        """
        del issued_at  # a serial number is never used twice
        leaf = self._data(target, f"cert/{principal}")
        issuer = leaf.get("issuer_id") or "default"
        try:
            certificate = x509.load_pem_x509_certificate(_pem(leaf, "certificate"))
            authority = x509.load_pem_x509_certificate(_pem(self._data(target, f"issuer/{issuer}/json"), "certificate"))
            crl = x509.load_pem_x509_crl(_pem(self._data(target, f"issuer/{issuer}/crl"), "crl"))
            signed = crl.is_signature_valid(authority.public_key())  # pyright: ignore[reportArgumentType] # any CA key
        except (ValueError, TypeError) as error:
            why = type(error).__name__
            raise TargetUnavailableError(f"pki {target.name}: its CRL cannot be read ({why})") from None
        if not signed:
            raise TargetUnavailableError(f"pki {target.name}: its CRL is not signed by its issuer")
        if crl.get_revoked_certificate_by_serial_number(certificate.serial_number) is not None:
            return Evidence(gone=True, detail=f"pki {target.name}: serial {principal} is on the signed CRL")
        if certificate.not_valid_after_utc <= self._clock.now():
            return Evidence(gone=True, detail=f"pki {target.name}: certificate {principal} has expired")
        return Evidence(gone=False, detail=f"pki {target.name}: serial {principal} is not on the CRL")

    def _data(self, target: Target, path: str) -> JsonObject:
        data = self._fetch(target.name, path)
        if data is None:
            raise TargetUnavailableError(f"pki {target.name} shows nothing at {path}")
        return data


def _pem(data: JsonObject, name: str) -> bytes:
    value = data.get(name)
    if not isinstance(value, str):
        raise TypeError(name)
    return value.encode()
