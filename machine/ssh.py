"""The only user of paramiko: a login to a host whose key is known beforehand."""

from __future__ import annotations

import base64
import hashlib
import io
import logging
import secrets
import shlex
import socket
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any, BinaryIO, Final, Self

from machine import command
from machine.command import Result
from machine.errors import (
    CommandFailed,
    GuestError,
    GuestUnreachable,
    HostKeyMismatch,
    MachineError,
    TimedOut,
)
from machine.model import Address, Login
from machine.wait import Deadline

if TYPE_CHECKING:
    import paramiko

ALIAS: Final = "machine"
"""The name that host keys are pinned under (ssh's HostKeyAlias): one known_hosts file a machine,
so an address that changes does not matter."""
KEEPALIVE: Final = 15
CHUNK: Final = 32768
_NO_PROGRAM: Final = 127
"""A shell's code for a command that it does not find (POSIX, 2.8.2)."""
_NOT_THERE: Final = 66
"""sysexits.h's EX_NOINPUT, which cat does not use."""
_CONTENTS: Final = """
for path in {paths}; do
    content=''
    [ ! -e "$path" ] || content="+$(base64 "$path")"
    echo $content
done
"""
_ANSWERS: Final = """
answer() {
    code=0
    said=$("$@" 2>/dev/null </dev/null) || code=$?
    echo $code $(printf %s "$said" | base64)
}
"""
_AFTER_MARK: Final = """\
mark=$1; shift
while IFS= read -r line && [ "$line" != "$mark" ]; do :; done
exec "$@"
"""


def known_hosts_line(public: str) -> str:
    """A pinned key in the format of sshd(8)'s known_hosts."""
    kind, blob = public.split()[:2]
    return f"{ALIAS} {kind} {blob}\n"


def connect(address: Address, login: Login, *, timeout: float = 20) -> SshGuest:
    """Log in. The host's key is compared before anything of ours is sent. ``timeout`` is seconds
    for the whole login. Raises HostKeyMismatch, GuestUnreachable."""
    paramiko = _paramiko()
    expected = _pinned(login.known_hosts)
    deadline = Deadline(timeout)
    where = f"{address.host} port {address.ssh_port}"
    with _transport(address, login.jump, login.config, timeout) as transport:
        transport.get_security_options().key_types = _algorithms(expected)
        transport.banner_timeout = transport.auth_timeout = max(1.0, deadline.left)
        try:
            transport.start_client(timeout=max(1.0, deadline.left))
        except paramiko.IncompatiblePeer as exc:
            raise HostKeyMismatch(
                f"The host at {where} has no key of the kind that is expected "
                f"({expected.get_name()})",
                details=str(exc),
                hint="Something else answers at that address. Nothing was sent to it.",
            ) from exc
        _compare(transport.get_remote_server_key(), expected, where)
        _authenticate(transport, login, where)
        transport.set_keepalive(KEEPALIVE)
    return SshGuest(transport, login.user, login.sudo_password)


def host_key(
    address: Address,
    *,
    jump: str = "",
    config: str = "",
    kinds: Sequence[str] = (),
    timeout: float = 20,
) -> str:
    """The public key that answers at an address now ("ssh-ed25519 AAAA..."): to be compared with
    something, before it is pinned. ``kinds`` are asked for before others. Nobody logs in. Raises
    GuestUnreachable."""
    with _transport(address, jump, config, timeout) as transport:
        options = transport.get_security_options()
        options.key_types = sorted(options.key_types, key=lambda kind: _rank(kind, kinds))
        transport.start_client(timeout=timeout)
        found = transport.get_remote_server_key()
        transport.close()
    return f"{found.get_name()} {found.get_base64()}"


def _rank(kind: str, wanted: Sequence[str]) -> tuple[bool, bool, bool]:
    """Of a kind of host key's signature: what is wanted first, then ed25519, RSA last."""
    is_rsa = kind.startswith(("rsa", "ssh-rsa"))
    return ("ssh-rsa" if is_rsa else kind) not in wanted, kind != "ssh-ed25519", is_rsa


def fingerprint(public: str) -> str:
    """As ssh-keygen -l shows a public key: SHA256:..."""
    blob = base64.b64decode(public.split()[1])
    digest = base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")
    return f"SHA256:{digest}"


def known_keys(files: Sequence[Path], address: Address) -> list[str]:
    """The public keys that known_hosts files have for an address; hashed entries are found too."""
    name = address.host if address.ssh_port == 22 else f"[{address.host}]:{address.ssh_port}"
    found = []
    for file in files:
        keys = _paramiko().HostKeys()
        with suppress(OSError):
            keys.load(str(file))
        known = keys.lookup(name) or {}
        found += [f"{kind} {known[kind].get_base64()}" for kind in known]
    return found


@contextmanager
def _transport(
    address: Address, jump: str, config: str, timeout: float
) -> Iterator[paramiko.Transport]:
    """A connection that nobody has logged in over yet; it is closed when its user fails, whose
    errors become ours."""
    paramiko = _paramiko()
    where = f"{address.host} port {address.ssh_port}"
    pipe = None
    try:
        if jump:
            pipe = command.pipe(*_jump_words(address, jump, config))
            sock = pipe.socket
        else:
            sock = socket.create_connection((address.host, address.ssh_port), timeout=timeout)
    except OSError as exc:
        raise _unreachable(f"No connection to {where}", exc) from exc
    transport = None
    try:
        transport = paramiko.Transport(sock)
        yield transport
    except MachineError:
        _close(transport, sock)
        raise
    except (paramiko.SSHException, OSError, EOFError) as exc:
        _close(transport, sock)
        if pipe and (said := pipe.said()):
            raise GuestUnreachable(f"No way to {where} through {jump}", details=said) from exc
        raise _unreachable(f"{where} does not speak SSH yet", exc) from exc
    except BaseException:
        _close(transport, sock)
        raise


def _jump_words(address: Address, jump: str, config: str) -> list[str]:
    """The ssh program brings us there, as the user's own configuration and known_hosts say; the
    login at the end is ours."""
    *before, last = jump.split(",")
    through = ["-J", ",".join(before)] if before else []
    host = f"[{address.host}]" if ":" in address.host else address.host
    batch = ("-o", "BatchMode=yes", "-o", "LogLevel=ERROR")
    file = ("-F", config) if config else ()
    return ["ssh", *file, *batch, *through, "-W", f"{host}:{address.ssh_port}", f"ssh://{last}"]


def _algorithms(key: paramiko.PKey) -> tuple[str, ...]:
    """The signatures that a host with such a key may make (RFC 8332 for RSA)."""
    name = key.get_name()
    return ("rsa-sha2-512", "rsa-sha2-256") if name == "ssh-rsa" else (name,)


def _authenticate(transport: paramiko.Transport, login: Login, where: str) -> None:
    """By the first key that is taken. Raises GuestUnreachable."""
    paramiko = _paramiko()
    refused = ""
    for key in _keys(login):
        try:
            transport.auth_publickey(login.user, key)
        except paramiko.AuthenticationException as exc:
            refused = str(exc)
        else:
            return
    raise GuestUnreachable(
        f"{where} refuses the key of {login.user}"
        if refused
        else f"There is no key to log in to {where} as {login.user} with",
        details=refused,
    )


def _keys(login: Login) -> Iterator[paramiko.PKey]:
    if login.agent:
        agent = _paramiko().Agent()
        yield from agent.get_keys()
    for path in login.keys:
        yield _private(path, login.passphrase)


def _private(path: Path, ask: Callable[[], str] | None) -> Any:
    """A private key of any kind that paramiko knows. Raises GuestUnreachable."""
    paramiko = _paramiko()
    passphrase = None
    try:
        text = path.read_text()
        if "ENCRYPTED" in text or _is_sealed(text):
            if ask is None:
                raise GuestUnreachable(f"The key {path} has a passphrase")
            passphrase = ask()
        for kind in (paramiko.Ed25519Key, paramiko.ECDSAKey, paramiko.RSAKey):
            with suppress(paramiko.SSHException, ValueError):
                return kind.from_private_key(io.StringIO(text), password=passphrase)
    except (OSError, UnicodeDecodeError) as exc:
        raise GuestUnreachable(f"The key {path} cannot be read", details=str(exc)) from exc
    raise GuestUnreachable(
        f"The key {path} cannot be used",
        details="Its passphrase is another one."
        if passphrase is not None
        else "It is no private key for SSH of a kind that is known (ed25519, ECDSA, RSA).",
    )


def _is_sealed(text: str) -> bool:
    """Whether a key in OpenSSH's own format has a passphrase (PROTOCOL.key: the cipher's name
    follows the magic word)."""
    body = "".join(line for line in text.splitlines() if not line.startswith("-"))
    with suppress(ValueError):
        raw = base64.b64decode(body)
        return raw.startswith(b"openssh-key-v1\0") and raw[19:23] != b"none"
    return False


def _options(login: Login) -> list[tuple[str, str]]:
    """ssh_config(5): the same login, and the same pinned key, for the ssh program. A blank in a
    path needs quotes there, and a % is doubled."""

    def quoted(path: Path) -> str:
        return '"' + str(path).replace("%", "%%") + '"'

    options = [
        ("HostKeyAlias", ALIAS),
        ("UserKnownHostsFile", quoted(login.known_hosts)),
        ("GlobalKnownHostsFile", "/dev/null"),
        ("StrictHostKeyChecking", "yes"),
        ("UpdateHostKeys", "no"),
        ("IdentitiesOnly", "no" if login.agent else "yes"),
        *(("IdentityFile", quoted(key)) for key in login.keys),
        ("LogLevel", "ERROR"),
    ]
    return [*options, ("ProxyJump", login.jump)] if login.jump else options


def ssh_command(address: Address, login: Login, words: Sequence[str]) -> list[str]:
    """The ssh program's words for the same login: for terminals, and for its own options."""
    options = [part for name, value in _options(login) for part in ("-o", f"{name}={value}")]
    file = ("-F", login.config) if login.config else ()
    return [
        "ssh",
        *file,
        *options,
        "-p",
        str(address.ssh_port),
        f"{login.user}@{address.host}",
        *words,
    ]


def config_entry(name: str, address: Address, login: Login) -> str:
    """The same login as a section of ssh_config(5), to be included by the user's own."""
    where = [("HostName", address.host), ("Port", str(address.ssh_port)), ("User", login.user)]
    lines = [f"    {key} {value}" for key, value in (*where, *_options(login))]
    return "\n".join([f"Host {name}", *lines, ""])


class SshGuest:
    """A login over one connection; implements ``machine.guest.Guest``. A context manager."""

    def __init__(
        self,
        transport: paramiko.Transport,
        user: str,
        sudo_password: Callable[[], str] | None = None,
    ) -> None:
        self.user = user
        self._ask_password = sudo_password
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
        words, before = self._as_root(argv) if sudo else (argv, b"")
        code, stdout, stderr = self._execute(shlex.join(words), before + (stdin or b""), timeout)
        result = Result(tuple(argv), code, stdout.decode("utf-8", "replace"), _text(stderr))
        if check and not result.ok:
            shown = f"$ {shlex.join(argv)}\n{(result.stderr or result.stdout).strip()[-4000:]}"
            for secret in hide:
                shown = shown.replace(secret, "***")
            raise CommandFailed(
                f"{argv[0]} on the host ended with code {code}",
                code=code,
                details=shown,
                hint=_remedy(shown),
            )
        return result

    def pipe(
        self,
        *argv: str,
        stdin: BinaryIO | IO[bytes],
        stdout: BinaryIO | IO[bytes],
        timeout: float,
        sudo: bool = False,
        accept: Sequence[int] = (0,),
    ) -> int:
        """As ``run``, for streams of any size and any bytes; answers the code. Raises CommandFailed
        for one that is not in ``accept``."""
        words, before = self._as_root(argv) if sudo else (argv, b"")
        channel = self._channel(shlex.join(words))
        threading.Thread(target=_feed, args=(channel, stdin, before), daemon=True).start()
        errors = io.BytesIO()
        code = self._drain(channel, stdout, errors, Deadline(timeout))
        said = _text(errors.getvalue()).strip()[-4000:]
        if code is None:
            raise TimedOut(
                f"{argv[0]} on the host did not end within {timeout:.0f} s", details=said
            )
        if code not in accept:
            brief = f"{argv[0]} on the host ended with code {code}"
            raise CommandFailed(brief, code=code, details=said, hint=_remedy(said))
        return code

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
            try:
                self._upload(content, waiting, progress, deadline)
            except OSError as exc:  # SFTP has no word for a full disk
                raise GuestError(
                    f"{waiting} cannot be written on the host",
                    details=str(exc),
                    hint=_remedy("No space left on device"),
                ) from exc
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
        look = ("sh", "-c", f'[ -e "$1" ] || exit {_NOT_THERE}; exec cat -- "$1"', "sh", path)
        words, before = self._as_root(look) if sudo else (look, b"")
        code, stdout, stderr = self._execute(shlex.join(words), before, 60)
        if code == _NOT_THERE:
            return None
        if code:
            raise CommandFailed(
                f"{path} cannot be read on the host", code=code, details=_text(stderr)
            )
        return stdout

    def get_all(self, paths: Sequence[str], *, sudo: bool = False) -> dict[str, bytes | None]:
        said = self.script(_CONTENTS.format(paths=shlex.join(paths)), sudo=sudo).stdout
        lines = said.splitlines()
        return {
            path: base64.b64decode(line.removeprefix("+")) if line else None
            for path, line in zip(paths, lines, strict=True)
        }

    def ask(self, *commands: Sequence[str], sudo: bool = False) -> list[Result]:
        if not commands:
            return []
        questions = "".join(f"answer {shlex.join(words)}\n" for words in commands)
        said = self.script(_ANSWERS + questions, sudo=sudo, timeout=120).stdout
        answers = [line.partition(" ") for line in said.splitlines()]
        return [
            Result(tuple(words), int(code), _text(base64.b64decode(text)), "")
            for words, (code, _, text) in zip(commands, answers, strict=True)
        ]

    def _as_root(self, argv: Sequence[str]) -> tuple[Sequence[str], bytes]:
        """The words that run a program as root, and what their standard input begins with. Where
        sudo wants a password it reads a line of it; a mark says where the program's own input
        begins, also where sudo did not read that line after all."""
        if self.user == "root":
            return argv, b""
        if not (password := self._password):
            return ("sudo", "-n", "--", *argv), b""
        mark = secrets.token_hex(8)
        words = ("sudo", "-S", "-p", "", "--", "sh", "-c", _AFTER_MARK, "sh", mark, *argv)
        return words, f"{password}\n{mark}\n".encode()

    @cached_property
    def _password(self) -> str:
        """What sudo wants to know; "" where it wants nothing. Raises GuestError, and what asking
        for it raises."""
        if self._ask_password is None:
            return ""
        code, _, stderr = self._execute("sudo -n true", b"", 60)
        if code == 0:
            return ""
        if code == _NO_PROGRAM:
            raise GuestError(
                f"There is no sudo on the host, and {self.user} is not root",
                details=_text(stderr),
                hint="Log in as root, or install sudo there",
            )
        password = self._ask_password()
        line = f"{password}\n".encode()
        code, _, stderr = self._execute("sudo -S -p '' true", line, 60)
        if code:
            raise GuestError(
                f"sudo on the host refuses {self.user}",
                details=_text(stderr).strip(),
                hint="Is the password right, and may this user become root there?",
            )
        return password

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
        stdout: BinaryIO | IO[bytes],
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


def _remedy(said: str) -> str:
    """What to do about it, where the system's own words say what it is (errno(3))."""
    if "No space left on device" in said:
        return "Is the host's disk full? Look there with: df -h"
    if "Read-only file system" in said:
        return "A file system of the host is read-only. Look there with: findmnt -o TARGET,OPTIONS"
    return ""


def _feed(channel: paramiko.Channel, source: BinaryIO | IO[bytes], before: bytes = b"") -> None:
    """Pass standard input on until it ends; a command that does not read it is no error."""
    try:
        channel.sendall(before)
        read = getattr(source, "read1", source.read)
        while chunk := read(CHUNK):
            channel.sendall(chunk)
        channel.shutdown_write()
    except (OSError, EOFError, ValueError):
        return


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")
