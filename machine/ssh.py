"""The only user of paramiko: a login to a host whose key is known beforehand."""

from __future__ import annotations

import logging
import secrets
import shlex
import socket
import threading
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO, Final, Self

from machine.command import Result
from machine.errors import CommandFailed, GuestUnreachable, HostKeyMismatch, TimedOut
from machine.model import Address
from machine.wait import Deadline

if TYPE_CHECKING:
    import paramiko

ALIAS: Final = "machine"
"""The name that host keys are pinned under (ssh's HostKeyAlias): one known_hosts file a machine,
so an address that changes does not matter."""
KEEPALIVE: Final = 15
CHUNK: Final = 32768
_NOT_THERE: Final = 66
"""sysexits.h's EX_NOINPUT, which cat does not use."""


def known_hosts_line(public: str) -> str:
    """A pinned key in the format of sshd(8)'s known_hosts."""
    kind, blob = public.split()[:2]
    return f"{ALIAS} {kind} {blob}\n"


def connect(
    address: Address, *, user: str, key: Path, known_hosts: Path, timeout: float = 20
) -> SshGuest:
    """Log in. The host's key is compared before anything of ours is sent. ``timeout`` is seconds
    for the whole login. Raises HostKeyMismatch, GuestUnreachable."""
    paramiko = _paramiko()
    expected = _pinned(known_hosts)
    deadline = Deadline(timeout)
    where = f"{address.host} port {address.ssh_port}"
    try:
        sock = socket.create_connection((address.host, address.ssh_port), timeout=timeout)
    except OSError as exc:
        raise _unreachable(f"No connection to {where}", exc) from exc
    transport = None
    try:
        transport = paramiko.Transport(sock)
        transport.get_security_options().key_types = (expected.get_name(),)
        transport.banner_timeout = transport.auth_timeout = max(1.0, deadline.left)
        transport.start_client(timeout=max(1.0, deadline.left))
        _compare(transport.get_remote_server_key(), expected, where)
        transport.auth_publickey(user, paramiko.Ed25519Key.from_private_key_file(str(key)))
        transport.set_keepalive(KEEPALIVE)
    except paramiko.AuthenticationException as exc:
        _close(transport, sock)
        raise _unreachable(f"{where} refuses the key of {user}", exc) from exc
    except paramiko.IncompatiblePeer as exc:
        _close(transport, sock)
        raise HostKeyMismatch(
            f"The host at {where} has no key of the kind that is expected ({expected.get_name()})",
            details=str(exc),
            hint="Something else answers at that address. Nothing was sent to it.",
        ) from exc
    except (paramiko.SSHException, OSError, EOFError) as exc:
        _close(transport, sock)
        raise _unreachable(f"{where} does not speak SSH yet", exc) from exc
    except BaseException:
        _close(transport, sock)
        raise
    return SshGuest(transport, user)


def _options(key: Path, known_hosts: Path) -> dict[str, str]:
    """ssh_config(5): the same login, and the same pinned key, for the ssh program. A blank in a
    path needs quotes there, and a % is doubled."""

    def quoted(path: Path) -> str:
        return '"' + str(path).replace("%", "%%") + '"'

    return {
        "HostKeyAlias": ALIAS,
        "UserKnownHostsFile": quoted(known_hosts),
        "GlobalKnownHostsFile": "/dev/null",
        "StrictHostKeyChecking": "yes",
        "UpdateHostKeys": "no",
        "IdentitiesOnly": "yes",
        "IdentityFile": quoted(key),
        "LogLevel": "ERROR",
    }


def ssh_command(
    address: Address, *, user: str, key: Path, known_hosts: Path, words: Sequence[str]
) -> list[str]:
    """The ssh program's words for the same login: for terminals, and for its own options."""
    ours = _options(key, known_hosts)
    options = [part for name, value in ours.items() for part in ("-o", f"{name}={value}")]
    return ["ssh", *options, "-p", str(address.ssh_port), f"{user}@{address.host}", *words]


def config_entry(name: str, address: Address, *, user: str, key: Path, known_hosts: Path) -> str:
    """The same login as a section of ssh_config(5), to be included by the user's own."""
    where = {"HostName": address.host, "Port": str(address.ssh_port), "User": user}
    lines = [f"    {key} {value}" for key, value in (where | _options(key, known_hosts)).items()]
    return "\n".join([f"Host {name}", *lines, ""])


class SshGuest:
    """A login over one connection; implements ``machine.guest.Guest``. A context manager."""

    def __init__(self, transport: paramiko.Transport, user: str) -> None:
        self.user = user
        self._transport = transport
        self._sftp: paramiko.SFTPClient | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        self._transport.close()

    def run(
        self,
        *argv: str,
        sudo: bool = False,
        stdin: bytes | None = None,
        timeout: float = 60,
        check: bool = True,
        hide: Sequence[str] = (),
    ) -> Result:
        words = ("sudo", "-n", "--", *argv) if sudo and self.user != "root" else argv
        code, stdout, stderr = self._execute(shlex.join(words), stdin or b"", timeout)
        result = Result(tuple(argv), code, stdout.decode("utf-8", "replace"), _text(stderr))
        if check and not result.ok:
            shown = f"$ {shlex.join(argv)}\n{(result.stderr or result.stdout).strip()[-4000:]}"
            for secret in hide:
                shown = shown.replace(secret, "***")
            raise CommandFailed(
                f"{argv[0]} on the host ended with code {code}", code=code, details=shown
            )
        return result

    def script(
        self, text: str, *, sudo: bool = False, timeout: float = 60, check: bool = True
    ) -> Result:
        return self.run(
            "sh", "-eu", "-s", sudo=sudo, stdin=text.encode(), timeout=timeout, check=check
        )

    def put(
        self,
        content: bytes | Path,
        path: str,
        *,
        mode: int = 0o644,
        owner: str = "root:root",
        progress: Callable[[int, int], None] | None = None,
        timeout: float = 600,
    ) -> None:
        waiting = f"/tmp/.machine-{secrets.token_hex(8)}"  # noqa: S108 - random and exclusive
        beside = f"{PurePosixPath(path).parent}/.{PurePosixPath(path).name}.new"
        deadline = Deadline(timeout)
        try:
            self._upload(content, waiting, progress, deadline)
            self.script(
                f"install -D -m {mode:o} -o {owner.split(':')[0]} -g {owner.split(':')[-1]} "
                f"{waiting} {shlex.quote(beside)}\n"
                f"mv -fT {shlex.quote(beside)} {shlex.quote(path)}\n",
                sudo=True,
                timeout=max(5.0, deadline.left),
            )
        finally:
            self._forget(waiting)

    def get(self, path: str, *, sudo: bool = False) -> bytes | None:
        words = ("sudo", "-n", "--") if sudo and self.user != "root" else ()
        look = f'[ -e "$1" ] || exit {_NOT_THERE}; exec cat -- "$1"'
        command = shlex.join((*words, "sh", "-c", look, "sh", path))
        code, stdout, stderr = self._execute(command, b"", 60)
        if code == _NOT_THERE:
            return None
        if code:
            raise CommandFailed(
                f"{path} cannot be read on the host", code=code, details=_text(stderr)
            )
        return stdout

    def sftp(self) -> paramiko.SFTPClient:
        """The SFTP session of this login, opened once."""
        if self._sftp is None:
            self._sftp = self._guarded(
                lambda: _paramiko().SFTPClient.from_transport(self._transport)
            )
        assert self._sftp is not None
        return self._sftp

    def stream(self, command: str, stdin: BinaryIO, stdout: BinaryIO, stderr: BinaryIO) -> int:
        """Run a command line with its streams passed through as they come; answers its code."""
        channel = self._channel(command)
        threading.Thread(target=_feed, args=(channel, stdin), daemon=True).start()
        code = self._drain(channel, stdout, stderr, None)
        assert code is not None
        return code

    def _execute(self, command: str, stdin: bytes, timeout: float) -> tuple[int, bytes, bytes]:
        import io

        deadline = Deadline(timeout)
        channel = self._channel(command)
        threading.Thread(target=_feed, args=(channel, io.BytesIO(stdin)), daemon=True).start()
        stdout, stderr = io.BytesIO(), io.BytesIO()
        code = self._drain(channel, stdout, stderr, deadline)
        if code is None:
            raise TimedOut(
                f"A command on the host did not end within {timeout:.0f} s",
                details=f"$ {command[:500]}\n{_text(stderr.getvalue())[-2000:]}",
            )
        return code, stdout.getvalue(), stderr.getvalue()

    def _channel(self, command: str) -> paramiko.Channel:
        def open_channel() -> Any:
            channel = self._transport.open_session(timeout=30)
            channel.exec_command(command)
            return channel

        channel: paramiko.Channel = self._guarded(open_channel)
        return channel

    def _drain(
        self,
        channel: paramiko.Channel,
        stdout: BinaryIO,
        stderr: BinaryIO,
        deadline: Deadline | None,
    ) -> int | None:
        """Read both streams at once until the command ends; None when the deadline is over."""
        ready = threading.Event()
        channel.in_buffer.set_event(ready)
        channel.in_stderr_buffer.set_event(ready)
        while True:
            ended = channel.exit_status_ready() or channel.closed
            moved = False
            for has, receive, sink in (
                (channel.recv_ready, channel.recv, stdout),
                (channel.recv_stderr_ready, channel.recv_stderr, stderr),
            ):
                while has():
                    sink.write(receive(CHUNK))
                    moved = True
            if moved:
                stdout.flush()
                stderr.flush()
                continue
            if ended and (channel.closed or channel.eof_received):
                break
            if deadline is not None and deadline.over:
                channel.close()
                return None
            if not self._transport.is_active():
                raise GuestUnreachable("The connection to the host was lost")
            ready.clear() if not (channel.recv_ready() or channel.recv_stderr_ready()) else None
            ready.wait(0.02 if ended else 0.05)
        code = channel.recv_exit_status() if channel.exit_status_ready() else -1
        channel.close()
        if code == -1 and not self._transport.is_active():
            raise GuestUnreachable("The connection to the host was lost")
        return 255 if code == -1 else code  # ended by a signal

    def _upload(
        self,
        content: bytes | Path,
        path: str,
        progress: Callable[[int, int], None] | None,
        deadline: Deadline,
    ) -> None:
        import io

        total = content.stat().st_size if isinstance(content, Path) else len(content)
        source: BinaryIO = content.open("rb") if isinstance(content, Path) else io.BytesIO(content)

        def tell(done: int, _: int) -> None:
            if deadline.over:
                raise TimedOut(f"Sending {path} did not end within {deadline.seconds:.0f} s")
            if progress:
                progress(done, total)

        with source:

            def send() -> None:
                with self.sftp().open(path, "wx") as target:
                    target.chmod(0o600)
                    target.set_pipelined(True)
                    done = 0
                    while chunk := source.read(CHUNK):
                        target.write(chunk)
                        done += len(chunk)
                        tell(done, total)

            self._guarded(send)

    def _forget(self, path: str) -> None:
        try:
            self.sftp().remove(path)
        except (OSError, GuestUnreachable, _paramiko().SSHException):
            pass  # never made, or the connection is lost: /tmp is emptied at boot

    def _guarded(self, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except (_paramiko().SSHException, EOFError, ConnectionError) as exc:
            raise GuestUnreachable("The connection to the host was lost", details=str(exc)) from exc


def _paramiko() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its import of ciphers that cryptography has deprecated
        import paramiko
    logging.getLogger("paramiko").setLevel(logging.CRITICAL)  # it logs tracebacks of lost peers
    return paramiko


def _pinned(known_hosts: Path) -> paramiko.PKey:
    try:
        lines = known_hosts.read_text().split("\n")
    except OSError as exc:
        raise HostKeyMismatch(
            "The pinned host key of this machine is missing", details=str(exc)
        ) from exc
    for line in lines:
        entry = _paramiko().hostkeys.HostKeyEntry.from_line(line) if line.strip() else None
        if entry is not None and entry.key is not None:
            key: paramiko.PKey = entry.key
            return key
    raise HostKeyMismatch(f"There is no host key in {known_hosts}")


def _compare(found: paramiko.PKey, expected: paramiko.PKey, where: str) -> None:
    if found.asbytes() != expected.asbytes():
        raise HostKeyMismatch(
            f"The host at {where} has another key than the one it was given",
            details=f"Expected {expected.fingerprint}\nGot      {found.fingerprint}",
            hint="Something else answers at that address. Nothing was sent to it.",
        )


def _unreachable(brief: str, exc: Exception) -> GuestUnreachable:
    return GuestUnreachable(brief, details=str(exc) or type(exc).__name__)


def _close(transport: Any, sock: socket.socket) -> None:
    if transport is not None:
        transport.close()
    sock.close()


def _feed(channel: paramiko.Channel, source: BinaryIO) -> None:
    """Pass standard input on until it ends; a command that does not read it is no error."""
    try:
        read = getattr(source, "read1", source.read)
        while chunk := read(CHUNK):
            channel.sendall(chunk)
        channel.shutdown_write()
    except (OSError, EOFError, ValueError):
        return


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")
