"""Machines of the third-party driver in a store, and engines that answer or are silent."""

from __future__ import annotations

import asyncio
import shutil
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager
from pathlib import Path

from machine import record
from machine.host import Host, certs_lock
from machine.model import Address, EngineOptions, State
from machine.store import Store
from machine.tls import Authority
from machine.workflows import bootstrap

PLUGIN = Path(__file__).parent / "integration" / "plugin"
ANSWER = b'{"Version": "26.1.5", "ApiVersion": "1.45"}'


def install(site: Path) -> None:
    """The driver in a folder for PYTHONPATH, as pip would leave it there."""
    shutil.copytree(PLUGIN / "machine_driver_folder", site / "machine_driver_folder")
    described = site / "machine_driver_folder-1.0.dist-info"
    described.mkdir()
    (described / "METADATA").write_text("Name: machine-driver-folder\nVersion: 1.0\n")
    (described / "entry_points.txt").write_text(
        "[machine.drivers]\nfolder = machine_driver_folder:FolderDriver\n"
    )


def made(
    name: str, driver: str, state: State, port: int = 2376, *, store: Store | None = None
) -> Host:
    """A machine in the store whose host, a folder, is in that state."""
    store = store or Store()
    block = record.block(config={"port": port})
    new = record.new(name, driver, block, EngineOptions(labels=("a=b",)))
    new.ours.journal.finished = True
    new.note_address(Address("127.0.0.1", engine_port=port))
    store.reserve(new)
    file = store.folder(name).root / new.ours.id / "state"
    file.parent.mkdir()
    file.write_text(state)
    return Host(store, new)


@contextmanager
def answering(store: Store, count: int) -> Iterator[list[int]]:
    """Ports of engines that answer over the store's mutual TLS."""
    authority = Authority(store.folders.certs, certs_lock(store))
    authority.ensure()
    cert, key = authority.issue_server(["127.0.0.1"])
    file = store.root / "server.pem"
    file.write_bytes(cert + key)
    ca = store.folders.certs / "ca.pem"
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=ca)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(file)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in ("HEAD /_ping", "GET /version"):
            await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nSwarm: inactive\r\n\r\n")
        writer.write(b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n" + ANSWER)
        await writer.drain()
        writer.close()

    async def serve() -> None:
        async with AsyncExitStack() as stack:
            for _ in range(count):
                server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
                ports.append((await stack.enter_async_context(server)).sockets[0].getsockname()[1])
            ready.set()
            await stopped.wait()

    loop, stopped = asyncio.new_event_loop(), asyncio.Event()
    ports: list[int] = []
    ready = threading.Event()
    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert ready.wait(60)
    try:
        yield ports
    finally:
        loop.call_soon_threadsafe(stopped.set)
        thread.join()
        loop.close()


@contextmanager
def silent(count: int) -> Iterator[list[int]]:
    """Ports that take a connection and never say a word."""
    with ExitStack() as stack:
        yield [
            stack.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1]
            for _ in range(count)
        ]


def running(store: Store, driver: str, prefix: str, ports: list[int]) -> list[Host]:
    """Machines with these ports, and the files to ask their engines with."""
    hosts = []
    for number, port in enumerate(ports, 1):
        host = made(f"{prefix}{number}", driver, State.RUNNING, port, store=store)
        Authority(store.folders.certs, certs_lock(store)).ensure()
        bootstrap.copy_client_certs(host)
        hosts.append(host)
    return hosts
