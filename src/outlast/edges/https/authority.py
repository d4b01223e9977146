"""The node's own certificate authority: it vouches for one name, this node's, and can never vouch for another.

Its certificate (RFC 5280) has a critical name constraint (§4.2.1.10) to that one name, excludes all addresses, and is
for servers alone (§4.2.1.12). Its key signs the node's certificates for the next five years, a year each, and is
forgotten then: it is never written anywhere. Whoever takes the node can pretend to be this node, and nobody else.

::

    https/authority.crt       what phones install (DER)
    https/leaf-0.key ...      the certificates of the node with their keys (PEM, mode 0600), valid in turn
"""

from __future__ import annotations

import secrets
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from outlast.errors import StorageError
from outlast.kernel import fingerprint_words, write_secret
from outlast.secrecy import make_private

FOLDER: Final = "https"
LEAVES: Final = 5
YEAR: Final = timedelta(days=365)
OVERLAP: Final = timedelta(days=30)
"""So long before its year a certificate is valid already, and is taken into use: clocks differ."""
LABEL_CHARS: Final = "abcdefghijkmnpqrstuvwxyz23456789"


@dataclass(frozen=True, slots=True)
class Leaf:
    """One certificate of the node, and from when to when it is valid."""

    file: Path
    begins: datetime
    ends: datetime


@dataclass(frozen=True, slots=True)
class Authority:
    """What was issued for one home: the name, what phones install (DER), and the node's certificates in turn."""

    name: str
    certificate: bytes
    leaves: tuple[Leaf, ...]

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the certificate, as phones and browsers show it."""
        return x509.load_der_x509_certificate(self.certificate).fingerprint(hashes.SHA256()).hex(":").upper()

    @property
    def words(self) -> list[str]:
        """The same as six words."""
        return fingerprint_words(self.certificate)

    @property
    def ends(self) -> datetime:
        """When the last certificate is over."""
        return self.leaves[-1].ends

    def leaf(self, now: datetime) -> Leaf:
        """The certificate to use now: the newest that is valid, else the nearest, for a clock that is off."""
        begun = [leaf for leaf in self.leaves if leaf.begins <= now]
        return begun[-1] if begun else self.leaves[0]

    def context(self, now: datetime) -> ssl.SSLContext:
        """What serves with that certificate (TLS 1.2 or later); raises StorageError when its file is damaged."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_cert_chain(self.leaf(now).file)
        except (OSError, ssl.SSLError):
            raise StorageError(
                "%(file)s is damaged: make the node's certificates anew", file=self.leaf(now).file
            ) from None
        return context


def new_name() -> str:
    """A host name that no other node has (RFC 6762): 60 random bits."""
    return f"outlast-{''.join(secrets.choice(LABEL_CHARS) for _ in range(12))}.local"


def issue(folder: Path, name: str, now: datetime) -> Authority:
    """Make an authority for ``name`` and all its certificates in ``folder``; its key is gone when this returns."""
    key = ec.generate_private_key(ec.SECP256R1())
    begins = now - timedelta(days=1)
    ends = begins + LEAVES * YEAR + OVERLAP
    own = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Outlast, for {name} alone")])
    limits = x509.NameConstraints(
        permitted_subtrees=[x509.DNSName(name)],
        excluded_subtrees=[x509.IPAddress(ip_network("0.0.0.0/0")), x509.IPAddress(ip_network("::/0"))],
    )
    authority = (
        _builder(own, own, key.public_key(), begins, ends)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(limits, critical=True)
        .sign(key, hashes.SHA256())
    )
    make_private(folder)
    for number in range(LEAVES):
        own_key = ec.generate_private_key(ec.SECP256R1())
        first = begins + number * YEAR
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        leaf = (
            _builder(subject, own, own_key.public_key(), first - (OVERLAP if number else timedelta()), first + YEAR)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        secret = own_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        write_secret(folder / f"leaf-{number}.key", secret + leaf.public_bytes(Encoding.PEM))
    write_secret(folder / "authority.crt", authority.public_bytes(Encoding.DER))  # last: now it is whole
    return read(folder) or _damaged(folder)


def read(folder: Path) -> Authority | None:
    """What was issued in ``folder``, or None when nothing was, to the end; raises StorageError when it is damaged."""
    try:
        certificate = (folder / "authority.crt").read_bytes()
    except FileNotFoundError:
        return None
    try:
        authority = x509.load_der_x509_certificate(certificate)
        limits = authority.extensions.get_extension_for_class(x509.NameConstraints).value
        (name,) = list(limits.permitted_subtrees or [])
        leaves = []
        for number in range(LEAVES):
            file = folder / f"leaf-{number}.key"
            one = x509.load_pem_x509_certificate(file.read_bytes())
            one.verify_directly_issued_by(authority)
            leaves.append(Leaf(file, one.not_valid_before_utc, one.not_valid_after_utc))
    except Exception:  # whatever the library says of bytes that it did not write
        return _damaged(folder)
    return Authority(str(name.value), certificate, tuple(leaves))


def now_utc(now_ms: int) -> datetime:
    """The node's time as certificates have it."""
    return datetime.fromtimestamp(now_ms / 1000, UTC)


def _damaged(folder: Path) -> Authority:
    raise StorageError("%(folder)s is damaged: remove it, and phones install the new certificate", folder=folder)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, begins: datetime, ends: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(ends)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
