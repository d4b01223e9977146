"""The certificate of a bridge's site: from files, which may change while it runs, or its own, pinned in the links."""

from __future__ import annotations

import datetime
import os
import ssl
import time
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from outlast.errors import StorageError
from outlast.rooms.reach.io.web_client import pin_of
from outlast.rooms.reach.io.web_server import server_context

LOOK_S: Final = 10.0
"""So often the files are looked at."""
SELF_SIGNED_DAYS: Final = 3650


class Certificate:
    """A certificate and its key in PEM files; what changes there is taken over, when it is whole."""

    def __init__(self, certificate: Path, key: Path, clock: Callable[[], float] = time.monotonic) -> None:
        """Read them; raises StorageError when they cannot be used."""
        self._files = (certificate, key)
        self._clock = clock
        self._state = self._look()
        self._looked_at = clock()
        try:
            self._context = self._load()
        except OSError as error:
            reason = error.strerror or getattr(error, "reason", None) or "not PEM"
            raise StorageError(
                "the certificate %(certificate)s or its key cannot be used: %(reason)s",
                certificate=certificate,
                reason=reason,
            ) from None

    def context(self) -> ssl.SSLContext:
        """What is in force now."""
        if self._clock() - self._looked_at >= LOOK_S:
            self._looked_at = self._clock()
            state = self._look()
            if state != self._state:
                try:
                    self._context = self._load()
                    self._state = state
                except OSError:
                    pass  # half written, or one without the other: what was there still serves
        return self._context

    @property
    def pin(self) -> bytes:
        """SHA-256 of the public key, 32 B."""
        certificate = x509.load_pem_x509_certificate(self._files[0].read_bytes())
        return pin_of(certificate.public_bytes(Encoding.DER))

    def vouched_for(self, name: str) -> bool:
        """Whether an authority that this system knows vouches for it under that name."""
        context = ssl.create_default_context()
        there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = context.wrap_bio(back, there, server_hostname=name)
        server = self._context.wrap_bio(there, back, server_side=True)
        for side in (client, server, client):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLError:
                return False
        return True

    def _load(self) -> ssl.SSLContext:
        return server_context(str(self._files[0]), str(self._files[1]))

    def _look(self) -> tuple[tuple[int, int], ...]:
        try:
            return tuple((found.st_mtime_ns, found.st_ino) for found in (file.stat() for file in self._files))
        except OSError:
            return ()


def self_signed(folder: Path, name: str, now: datetime.datetime | None = None) -> Certificate:
    """The folder's own certificate, made when there is none yet; its key stays, so links with its pin stay good."""
    certificate, key = folder / "web-certificate.pem", folder / "web-key.pem"
    if not certificate.exists() or not key.exists():
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        signing = ec.generate_private_key(ec.SECP256R1())
        made = signed(name, signing, now or datetime.datetime.now(datetime.UTC))
        write_private(key, signing.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        write_private(certificate, made.public_bytes(Encoding.PEM))
    return Certificate(certificate, key)


def signed(name: str, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, now: datetime.datetime) -> x509.Certificate:
    """A certificate for a name or address that vouches for itself."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])
    try:
        alternative: x509.GeneralName = x509.IPAddress(ip_address(name))
    except ValueError:
        alternative = x509.DNSName(name)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=SELF_SIGNED_DAYS))
        .add_extension(x509.SubjectAlternativeName([alternative]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )


def write_private(path: Path, data: bytes) -> None:
    """Write a file that its owner alone may read, whole or not at all."""
    part = path.with_suffix(".part")
    part.unlink(missing_ok=True)
    with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
