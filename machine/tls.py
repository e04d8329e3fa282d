"""Mutual TLS: one authority per store, a client certificate, and one server certificate a machine."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from machine import files
from machine.errors import BadOption, MachineError

if TYPE_CHECKING:
    from cryptography import x509

CA_DAYS: Final = 3650
LEAF_DAYS: Final = 1080
"""docker-machine's lifetime; a leaf never outlives its authority."""
BACKDATE: Final = datetime.timedelta(minutes=5)
"""A guest's clock may be a little behind (docker-machine's figure)."""


class Authority:
    """``STORE/certs``: ca.pem, ca-key.pem, cert.pem, key.pem, as docker-machine names them. An
    authority that docker-machine made is used as it is."""

    def __init__(self, certs: Path, lock: Path) -> None:
        self.certs = certs
        self.lock = lock

    def ensure(self) -> None:
        """Make what is missing, once, however many processes ask. An expired authority is told,
        never replaced: that would cut off every machine. Raises MachineError."""
        from filelock import FileLock

        self.certs.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.lock.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with FileLock(self.lock, mode=0o600):
            if not ((self.certs / "ca.pem").exists() and (self.certs / "ca-key.pem").exists()):
                self._make_ca()
            if not ((self.certs / "cert.pem").exists() and (self.certs / "key.pem").exists()):
                self._make_client()
        for name, remedy in (
            ("ca.pem", "it signs every machine's certificate; make a new store"),
            ("cert.pem", "machine regenerate-certs --client-certs"),
        ):
            if expiry(self.certs / name) < _now():
                raise MachineError(f"The certificate {self.certs / name} has expired", hint=remedy)

    def renew_client(self) -> None:
        """A new client certificate from the same authority. Machines trust the authority, so
        none of them is touched."""
        from filelock import FileLock

        with FileLock(self.lock, mode=0o600):
            self._make_client()

    def issue_server(self, names: Sequence[str]) -> tuple[bytes, bytes]:
        """Certificate and key (PEM) for an engine that is reached by ``names``: host names and
        addresses. Raises BadOption for what is neither."""
        from cryptography import x509
        from cryptography.x509.oid import ExtendedKeyUsageOID

        alternatives = x509.SubjectAlternativeName([_alternative(name) for name in _unique(names)])
        return self._issue(names[0], ExtendedKeyUsageOID.SERVER_AUTH, alternatives)

    def _make_ca(self) -> None:
        from cryptography import x509

        key = _new_key()
        name = _subject("machine CA")
        usage = _key_usage(key_cert_sign=True, crl_sign=True)
        builder = (
            _builder(name, name, key.public_key(), CA_DAYS)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
            )
        )
        cert = builder.sign(key, _sha256())
        # The key first: a CA certificate is there only together with its key.
        files.replace(self.certs / "ca-key.pem", _key_pem(key), mode=0o600)
        files.replace(self.certs / "ca.pem", _pem(cert), mode=0o644)
        for stale in ("cert.pem", "key.pem"):
            (self.certs / stale).unlink(missing_ok=True)

    def _make_client(self) -> None:
        from cryptography.x509.oid import ExtendedKeyUsageOID

        cert, key = self._issue("machine client", ExtendedKeyUsageOID.CLIENT_AUTH, None)
        files.replace(self.certs / "key.pem", key, mode=0o600)
        files.replace(self.certs / "cert.pem", cert, mode=0o644)

    def _issue(
        self, name: str, usage: x509.ObjectIdentifier, alternatives: x509.ExtensionType | None
    ) -> tuple[bytes, bytes]:
        from cryptography import x509
        from cryptography.hazmat.primitives import serialization

        ca = _load(self.certs / "ca.pem")
        ca_key: Any = serialization.load_pem_private_key(
            (self.certs / "ca-key.pem").read_bytes(), password=None
        )
        key = _new_key()
        builder = (
            _builder(
                _subject(name), ca.subject, key.public_key(), LEAF_DAYS, ca.not_valid_after_utc
            )
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(digital_signature=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()),
                critical=False,
            )
        )
        if alternatives is not None:
            builder = builder.add_extension(alternatives, critical=False)
        return _pem(builder.sign(ca_key, _sha256())), _key_pem(key)


def expiry(path: Path) -> datetime.datetime:
    """When a certificate file ends, in UTC."""
    return _load(path).not_valid_after_utc


def ends(pem: bytes) -> datetime.datetime:
    """Likewise, of a certificate."""
    from cryptography import x509

    return x509.load_pem_x509_certificate(pem).not_valid_after_utc


def names_of(pem: bytes) -> frozenset[str]:
    """The host names and addresses that a server certificate is valid for."""
    from cryptography import x509

    cert = x509.load_pem_x509_certificate(pem)
    found = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return frozenset(
        [*found.get_values_for_type(x509.DNSName)]
        + [str(each) for each in found.get_values_for_type(x509.IPAddress)]
    )


def _load(path: Path) -> x509.Certificate:
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError) as exc:
        raise MachineError(f"The certificate {path} cannot be read", details=str(exc)) from exc


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public_key: Any,
    days: int,
    latest: datetime.datetime | None = None,
) -> x509.CertificateBuilder:
    from cryptography import x509

    end = _now() + datetime.timedelta(days=days)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(_now() - BACKDATE)
        .not_valid_after(min(end, latest) if latest else end)
    )


def _subject(name: str) -> x509.Name:
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "machine"),
            x509.NameAttribute(NameOID.COMMON_NAME, name[:64]),  # RFC 5280's upper bound
        ]
    )


def _key_usage(**true: bool) -> x509.KeyUsage:
    from cryptography import x509

    names = (
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
        "encipher_only",
        "decipher_only",
    )
    return x509.KeyUsage(**{name: true.get(name, False) for name in names})


def _alternative(name: str) -> x509.GeneralName:
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        pass
    labels = name.removeprefix("*.").split(".")
    if not all(label.isascii() and label.replace("-", "").isalnum() for label in labels):
        raise BadOption(
            f"{name!r} is neither a host name nor an address", hint="--tls-san worker1.example.org"
        )
    return x509.DNSName(name)


def _unique(names: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(names))


def _new_key() -> Any:
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.generate_private_key(ec.SECP256R1())


def _sha256() -> Any:
    from cryptography.hazmat.primitives import hashes

    return hashes.SHA256()


def _pem(cert: x509.Certificate) -> bytes:
    from cryptography.hazmat.primitives import serialization

    return cert.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: Any) -> bytes:
    from cryptography.hazmat.primitives import serialization

    pem: bytes = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return pem


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
