"""Logins that must fail, against a real SSH server in this process."""

from __future__ import annotations

import socket
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from machine import keys, ssh
from machine.errors import GuestUnreachable, HostKeyMismatch
from machine.model import Address, Login

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import paramiko


class Server(paramiko.ServerInterface):
    """Lets nobody in, and remembers who tried."""

    def __init__(self) -> None:
        self.tried: list[str] = []

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        self.tried.append(username)
        return int(paramiko.common.AUTH_FAILED)


@pytest.fixture
def host_key(tmp_path: Path) -> keys.KeyPair:
    pair = keys.ed25519()
    (tmp_path / "host_key").write_text(pair.private)
    (tmp_path / "user_key").write_text(keys.ed25519().private)
    return pair


@pytest.fixture
def server(tmp_path: Path, host_key: keys.KeyPair) -> Iterator[tuple[Address, Server]]:
    listener = socket.create_server(("127.0.0.1", 0))
    policy = Server()
    transports: list[paramiko.Transport] = []

    def serve() -> None:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        transport = paramiko.Transport(connection)
        transports.append(transport)
        transport.add_server_key(
            paramiko.Ed25519Key.from_private_key_file(str(tmp_path / "host_key"))
        )
        try:
            transport.start_server(server=policy)
        except (paramiko.SSHException, EOFError, OSError):
            return

    thread = threading.Thread(target=serve)
    thread.start()
    yield Address("127.0.0.1", listener.getsockname()[1]), policy
    listener.close()
    thread.join(10)
    for each in transports:
        each.close()


def login(address: Address, folder: Path) -> None:
    ours = Login("me", folder / "known_hosts", (folder / "user_key",))
    ssh.connect(address, ours, timeout=10).close()


def test_another_key_is_refused_before_a_login_is_tried(
    server: tuple[Address, Server], tmp_path: Path
) -> None:
    address, policy = server
    (tmp_path / "known_hosts").write_text(ssh.known_hosts_line(keys.ed25519().public))
    with pytest.raises(HostKeyMismatch, match="another key") as caught:
        login(address, tmp_path)
    assert "SHA256:" in caught.value.details
    assert policy.tried == []


def test_without_a_pinned_key_nothing_is_sent(
    server: tuple[Address, Server], tmp_path: Path, host_key: keys.KeyPair
) -> None:
    address, policy = server
    with pytest.raises(HostKeyMismatch, match="missing"):
        login(address, tmp_path)
    (tmp_path / "known_hosts").write_text("\n")
    with pytest.raises(HostKeyMismatch, match="no host key"):
        login(address, tmp_path)
    assert policy.tried == []
    socket.create_connection((address.host, address.ssh_port)).close()


def test_a_refused_login_is_told(
    server: tuple[Address, Server], tmp_path: Path, host_key: keys.KeyPair
) -> None:
    address, policy = server
    (tmp_path / "known_hosts").write_text(ssh.known_hosts_line(host_key.public))
    with pytest.raises(GuestUnreachable, match="refuses the key of me"):
        login(address, tmp_path)
    assert policy.tried == ["me"]


def test_nobody_there_and_something_else_there(tmp_path: Path, host_key: keys.KeyPair) -> None:
    (tmp_path / "known_hosts").write_text(ssh.known_hosts_line(host_key.public))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        def talk() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=talk)
        thread.start()
        with pytest.raises(GuestUnreachable, match="does not speak SSH"):
            login(Address("127.0.0.1", port), tmp_path)
        thread.join(10)
    with pytest.raises(GuestUnreachable, match="No connection"):
        login(Address("127.0.0.1", port), tmp_path)
