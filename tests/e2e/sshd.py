"""A small SSH server that runs commands and passes connections on: the way to "another computer"
in a test bed.

python -m tests.e2e.sshd ADDRESS PORT FOLDER: host_key and authorized_keys lie in the folder.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
import warnings
from pathlib import Path
from typing import IO

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import paramiko

CHUNK = 1 << 16


class Policy(paramiko.ServerInterface):
    """One key is let in, and may run whatever it asks for."""

    def __init__(self, authorized: str) -> None:
        self.authorized = authorized
        self.passed: dict[int, socket.socket] = {}

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        good = f"{key.get_name()} {key.get_base64()}" in self.authorized
        return int(paramiko.common.AUTH_SUCCESSFUL if good else paramiko.common.AUTH_FAILED)

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return int(paramiko.common.OPEN_SUCCEEDED)

    def check_channel_direct_tcpip_request(
        self, chanid: int, origin: tuple[str, int], destination: tuple[str, int]
    ) -> int:
        """RFC 4254, 7.2: what ssh -W and -J ask for."""
        try:
            there = socket.create_connection(destination, timeout=10)
        except OSError:
            return int(paramiko.common.OPEN_FAILED_CONNECT_FAILED)
        there.settimeout(None)
        self.passed[chanid] = there
        return int(paramiko.common.OPEN_SUCCEEDED)

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        threading.Thread(target=execute, args=(channel, command.decode()), daemon=True).start()
        return True


def execute(channel: paramiko.Channel, command: str) -> None:
    pipe = subprocess.PIPE
    child = subprocess.Popen(["sh", "-c", command], stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0)
    assert child.stdin and child.stdout and child.stderr
    threading.Thread(target=feed, args=(channel, child.stdin), daemon=True).start()
    errors = threading.Thread(
        target=drain, args=(child.stderr, channel.sendall_stderr), daemon=True
    )
    errors.start()
    drain(child.stdout, channel.sendall)
    errors.join()
    with contextlib.suppress(OSError):
        channel.send_exit_status(child.wait())
        channel.close()


def connect(transport: paramiko.Transport, passed: dict[int, socket.socket]) -> None:
    """Every channel that is a connection gets its two directions."""
    while transport.is_active():
        channel = transport.accept(1)
        if channel is None or (there := passed.pop(channel.get_id(), None)) is None:
            continue
        for work in (pass_on, bring_back):
            threading.Thread(target=work, args=(channel, there), daemon=True).start()


def pass_on(channel: paramiko.Channel, there: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := channel.recv(CHUNK):
            there.sendall(data)
        there.shutdown(socket.SHUT_WR)


def bring_back(channel: paramiko.Channel, there: socket.socket) -> None:
    drain(there.makefile("rb", buffering=0), channel.sendall)
    channel.close()


def feed(channel: paramiko.Channel, stdin: IO[bytes]) -> None:
    with contextlib.suppress(OSError):
        while data := channel.recv(CHUNK):
            view = memoryview(data)
            while view:
                view = view[stdin.write(view) :]
        stdin.close()


def drain(stream: IO[bytes] | socket.SocketIO, send: object) -> None:
    with contextlib.suppress(OSError):
        while data := stream.read(CHUNK):
            send(data)  # type: ignore[operator]


def serve(address: str, port: int, folder: Path) -> None:
    host_key = paramiko.Ed25519Key.from_private_key_file(str(folder / "host_key"))
    authorized = (folder / "authorized_keys").read_text()
    with socket.create_server((address, port)) as listener:
        (folder / "listening").touch()
        kept = []
        while True:
            connection, _ = listener.accept()
            transport = paramiko.Transport(
                connection, default_window_size=1 << 24, default_max_packet_size=1 << 18
            )
            transport.add_server_key(host_key)
            policy = Policy(authorized)
            with contextlib.suppress(paramiko.SSHException, EOFError, OSError):
                transport.start_server(server=policy)
            threading.Thread(target=connect, args=(transport, policy.passed), daemon=True).start()
            kept.append(transport)


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
