"""One question to engines' APIs, by the standard library alone: `ls` asks every machine.

One loop over sockets that never block asks them all at once: an engine that is silent holds neither
a thread nor the others.
"""

from __future__ import annotations

import errno
import json
import os
import re
import resource
import selectors
import socket
import ssl
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import suppress
from functools import partial
from typing import Final, TypeVar

from machine.errors import EngineUnreachable
from machine.model import Address, EngineInfo, TlsFiles
from machine.wait import Deadline

T = TypeVar("T")
Waiting = Generator[tuple[int, int], None, T]
"""Work on a socket; what it yields is the descriptor and the event that it waits for."""

QUESTION: Final = (
    b"HEAD /_ping HTTP/1.1\r\nHost: docker\r\n\r\nGET /version HTTP/1.0\r\nHost: docker\r\n\r\n"
)
"""Two at once, which are answered in their order (RFC 9112, 9.3.2): the first has headers alone, and
HTTP/1.0 is answered in one piece that ends with the connection (6.1 and 6.3 there)."""
LONGEST: Final = 1 << 20
"""Bytes of an answer; an engine's has about one thousand."""


def version(address: Address, tls: TlsFiles, *, timeout: float) -> EngineInfo:
    """GET /version over mutual TLS. Raises EngineUnreachable, which tells a refused connection
    from one that timed out and from a certificate that does not fit."""
    _, answer = next(versions({"": (address, tls)}, timeout=timeout))
    if isinstance(answer, EngineUnreachable):
        raise answer
    return answer


def versions(
    engines: Mapping[str, tuple[Address, TlsFiles]], *, timeout: float
) -> Iterator[tuple[str, EngineInfo | EngineUnreachable]]:
    """The same for many, by name, each as soon as it answers. ``timeout`` is seconds for all."""
    deadline = Deadline(timeout)
    _allow_open(len(engines))
    contexts: dict[tuple[bytes, ...], ssl.SSLContext] = {}
    waiting: dict[str, Waiting[EngineInfo]] = {}
    with selectors.DefaultSelector() as selector:

        def go_on(name: str) -> EngineInfo | EngineUnreachable | None:
            """Up to where it has to wait (None) or ends."""
            try:
                descriptor, event = next(waiting[name])
            except StopIteration as end:
                answer: EngineInfo | EngineUnreachable = end.value
            except EngineUnreachable as exc:
                answer = exc
            else:
                selector.register(descriptor, event, name)
                return None
            del waiting[name]
            return answer

        for name, (address, tls) in engines.items():
            waiting[name] = _asked(address, tls, contexts)
            if answer := go_on(name):
                yield name, answer
        while waiting and not deadline.over:
            for key, _ in selector.select(deadline.left):
                selector.unregister(key.fd)
                if answer := go_on(key.data):
                    yield key.data, answer
        for name, each in waiting.items():
            each.close()
            yield (
                name,
                EngineUnreachable(f"The engine at {_at(engines[name][0])} did not answer in time"),
            )


def _allow_open(sockets: int) -> None:
    """Raise the soft limit of open files towards the hard one, where so many sockets need it: it
    is 1024 with most Linux systems, and 256 with macOS."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = sockets + 128
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _asked(
    address: Address, tls: TlsFiles, contexts: dict[tuple[bytes, ...], ssl.SSLContext]
) -> Waiting[EngineInfo]:
    where = _at(address)
    try:
        context = _context(tls, contexts)
    except OSError as exc:  # an SSLError is one
        raise EngineUnreachable(
            "The machine's client certificate cannot be used",
            details=str(exc),
            hint="machine regenerate-certs --client-certs NAME",
        ) from exc
    try:
        answer = yield from _answer(address, context)
    except ssl.SSLCertVerificationError as exc:
        raise EngineUnreachable(
            f"The engine at {where} has a certificate that does not fit: {exc.verify_message}",
            hint="machine regenerate-certs NAME",
        ) from exc
    except ssl.SSLError as exc:
        raise EngineUnreachable(
            f"The engine at {where} refuses our certificate", details=str(exc)
        ) from exc
    except OSError as exc:
        raise EngineUnreachable(
            f"The engine at {where} cannot be reached: {exc.strerror or exc}"
        ) from exc
    try:
        ping, _, body = answer.split(b"\r\n\r\n", 2)
        told = json.loads(body)
        return EngineInfo(told["Version"], told.get("ApiVersion", ""), _swarm(ping))
    except (ValueError, LookupError, TypeError, AttributeError) as exc:
        raise EngineUnreachable(f"What answers at {where} is no Docker engine") from exc


def _swarm(headers: bytes) -> str:
    """What GET /_ping says of the engine's part in a Swarm (API 1.42 and later)."""
    found = re.search(rb"(?im)^Swarm:[ \t]*([a-z/]+)", headers)
    return found[1].decode() if found else ""


def _answer(address: Address, context: ssl.SSLContext) -> Waiting[bytes]:
    host, answer = address.engine_at, b""
    with (  # the wrapped socket takes the descriptor over, so that each of the two may be closed
        (yield from _connected(address)) as plain,
        context.wrap_socket(plain, server_hostname=host, do_handshake_on_connect=False) as channel,
    ):
        yield from _done(channel, channel.do_handshake)
        yield from _done(channel, partial(channel.send, QUESTION))
        while len(answer) < LONGEST:
            more = yield from _done(channel, partial(channel.recv, 1 << 16))
            if not more:
                break
            answer += more
    return answer


def _connected(address: Address) -> Waiting[socket.socket]:
    """To the first of a name's addresses that takes a connection."""
    failure = OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
    found = socket.getaddrinfo(address.engine_at, address.engine_port, type=socket.SOCK_STREAM)
    for family, kind, protocol, _, target in found:
        plain = socket.socket(family, kind, protocol)
        try:
            plain.settimeout(0)
            number = plain.connect_ex(target)
            if number == errno.EINPROGRESS:
                yield plain.fileno(), selectors.EVENT_WRITE
                number = plain.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        except BaseException:
            plain.close()
            raise
        if not number:
            return plain
        plain.close()
        failure = OSError(number, os.strerror(number))
    raise failure


def _done(channel: ssl.SSLSocket, step: Callable[[], T]) -> Waiting[T]:
    """The step's result; it is tried again whenever TLS can go on."""
    while True:
        try:
            return step()
        except ssl.SSLWantReadError:
            yield channel.fileno(), selectors.EVENT_READ
        except ssl.SSLWantWriteError:
            yield channel.fileno(), selectors.EVENT_WRITE


def _context(tls: TlsFiles, known: dict[tuple[bytes, ...], ssl.SSLContext]) -> ssl.SSLContext:
    """One for all machines with the same files: each has copies of the store's."""
    content = tuple(path.read_bytes() for path in (tls.ca, tls.cert, tls.key))
    if content not in known:
        context = ssl.create_default_context(cafile=str(tls.ca))
        context.load_cert_chain(str(tls.cert), str(tls.key))
        known[content] = context
    return known[content]


def _at(address: Address) -> str:
    return f"{address.engine_at}:{address.engine_port}"
