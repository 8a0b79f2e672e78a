"""Ask a certificate authority whether a certificate is revoked: its signed CRL must say so."""

from collections.abc import Callable
from datetime import datetime

from cryptography import x509

from controlplane.model.errors import TargetUnavailableError
from controlplane.model.lease import Evidence, Target
from controlplane.ports import Clock


class PkiProber:
    """Fits `ports.Prober`. `fetch(mount, what)` reads the PEM of `ca`, `crl` or a serial from the authority."""

    def __init__(self, fetch: Callable[[str, str], str | None], clock: Clock) -> None:
        self._fetch = fetch
        self._clock = clock

    def ask(self, target: Target, principal: str, *, issued_at: datetime) -> Evidence:
        """Whether the CRL, signed by the authority, lists the serial `principal`, or the certificate has run out.

        Raises: TargetUnavailableError: no CRL, or one that its authority did not sign.
        Source: RFC 5280 5.
        """
        del issued_at  # a serial number is never used twice
        try:
            authority = x509.load_pem_x509_certificate(self._pem(target, "ca"))
            crl = x509.load_pem_x509_crl(self._pem(target, "crl"))
            serial = int(principal.replace(":", "").replace("-", ""), 16)
            signed = crl.is_signature_valid(authority.public_key())  # pyright: ignore[reportArgumentType] # any CA key
        except (ValueError, TypeError) as error:
            raise TargetUnavailableError(
                f"pki {target.name}: its CRL cannot be read ({type(error).__name__})"
            ) from None
        if not signed:
            raise TargetUnavailableError(f"pki {target.name}: its CRL is not signed by its authority")
        if crl.get_revoked_certificate_by_serial_number(serial) is not None:
            return Evidence(gone=True, detail=f"pki {target.name}: serial {principal} is on the signed CRL")
        pem = self._fetch(target.name, principal)
        if pem is not None and x509.load_pem_x509_certificate(pem.encode()).not_valid_after_utc <= self._clock.now():
            return Evidence(gone=True, detail=f"pki {target.name}: certificate {principal} has expired")
        return Evidence(gone=False, detail=f"pki {target.name}: serial {principal} is not on the CRL")

    def _pem(self, target: Target, what: str) -> bytes:
        pem = self._fetch(target.name, what)
        if pem is None:
            raise TargetUnavailableError(f"pki {target.name} shows no {what}")
        return pem.encode()
