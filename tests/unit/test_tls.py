from __future__ import annotations

import datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from machine import tls
from machine.errors import BadOption, MachineError


@pytest.fixture
def authority(tmp_path: Path) -> tls.Authority:
    made = tls.Authority(tmp_path / "certs", tmp_path / "locks" / "certs.lock")
    made.ensure()
    return made


def load(pem: bytes) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pem)


def test_keys_are_their_owners_alone(authority: tls.Authority) -> None:
    modes = {each.name: each.stat().st_mode & 0o777 for each in authority.certs.iterdir()}
    assert modes == {"ca.pem": 0o644, "ca-key.pem": 0o600, "cert.pem": 0o644, "key.pem": 0o600}


def test_what_is_there_is_kept(authority: tls.Authority) -> None:
    before = {each.name: each.read_bytes() for each in authority.certs.iterdir()}
    authority.ensure()
    assert {each.name: each.read_bytes() for each in authority.certs.iterdir()} == before


def test_a_half_made_authority_is_made_whole(authority: tls.Authority) -> None:
    (authority.certs / "ca.pem").unlink()
    authority.ensure()
    ca = load((authority.certs / "ca.pem").read_bytes())
    load((authority.certs / "cert.pem").read_bytes()).verify_directly_issued_by(ca)


def test_a_server_certificate_is_for_its_names_and_serving_only(authority: tls.Authority) -> None:
    pem, _ = authority.issue_server(["w1", "10.0.0.2", "localhost", "10.0.0.2", "a.example.org"])
    cert = load(pem)
    assert tls.names_of(pem) == {"w1", "10.0.0.2", "localhost", "a.example.org"}
    usage = cert.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.SERVER_AUTH]
    ca = load((authority.certs / "ca.pem").read_bytes())
    cert.verify_directly_issued_by(ca)
    assert cert.not_valid_after_utc <= ca.not_valid_after_utc
    assert not cert.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def test_a_client_certificate_is_for_clients_only(authority: tls.Authority) -> None:
    cert = load((authority.certs / "cert.pem").read_bytes())
    usage = cert.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]


@pytest.mark.parametrize("name", ["a b", "", "a_b!", "http://x", "-" * 3])
def test_what_is_no_name_is_refused(authority: tls.Authority, name: str) -> None:
    with pytest.raises(BadOption, match="neither a host name nor an address"):
        authority.issue_server(["w1", name])


def test_an_expired_certificate_is_told_and_never_replaced(
    authority: tls.Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=tls.LEAF_DAYS + 1)
    before = (authority.certs / "cert.pem").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(tls, "_now", lambda: later)
        with pytest.raises(MachineError, match="has expired") as caught:
            authority.ensure()
    assert "--client-certs" in caught.value.hint
    assert (authority.certs / "cert.pem").read_bytes() == before
