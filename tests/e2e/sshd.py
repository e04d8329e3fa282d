"""A small SSH server that runs commands: the way to "another computer" in a test bed.

python -m tests.e2e.sshd PORT FOLDER: host_key and authorized_keys lie in the folder.
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

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        good = f"{key.get_name()} {key.get_base64()}" in self.authorized
        return int(paramiko.common.AUTH_SUCCESSFUL if good else paramiko.common.AUTH_FAILED)

    def check_channel_request(self, kind: str, chanid: int) -> int:
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


def feed(channel: paramiko.Channel, stdin: IO[bytes]) -> None:
    with contextlib.suppress(OSError):
        while data := channel.recv(CHUNK):
            view = memoryview(data)
            while view:
                view = view[stdin.write(view) :]
        stdin.close()


def drain(stream: IO[bytes], send: object) -> None:
    with contextlib.suppress(OSError):
        while data := stream.read(CHUNK):
            send(data)  # type: ignore[operator]


def serve(port: int, folder: Path) -> None:
    host_key = paramiko.Ed25519Key.from_private_key_file(str(folder / "host_key"))
    policy = Policy((folder / "authorized_keys").read_text())
    with socket.create_server(("127.0.0.1", port)) as listener:
        (folder / "listening").touch()
        kept = []
        while True:
            connection, _ = listener.accept()
            transport = paramiko.Transport(
                connection, default_window_size=1 << 24, default_max_packet_size=1 << 18
            )
            transport.add_server_key(host_key)
            with contextlib.suppress(paramiko.SSHException, EOFError, OSError):
                transport.start_server(server=policy)
            kept.append(transport)


if __name__ == "__main__":
    serve(int(sys.argv[1]), Path(sys.argv[2]))
