"""Machines of the third-party driver, for the tests of the command line."""

from __future__ import annotations

import http.server
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from machine.host import certs_lock
from machine.model import State
from machine.tls import Authority
from machine.workflows import bootstrap
from tests.hosts import HostBed
from tests.machines import made


@pytest.fixture(scope="session")
def two_hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostBed]:
    """Real machines, m1 and w1, with engines; whoever changes one leaves it as it was."""
    with HostBed(tmp_path_factory.mktemp("bed") / "hosts", "m1", "w1") as bed:
        for name in bed.hosts:
            done = bed.create(name)
            assert done.returncode == 0, done.stderr
        yield bed


@pytest.fixture
def host(folder_driver: str, own_home: Path) -> str:
    """A host that runs, and whose engine does not."""
    return made("f1", folder_driver, State.RUNNING).name


@pytest.fixture
def stopped(folder_driver: str, own_home: Path) -> str:
    return made("s1", folder_driver, State.STOPPED).name


@pytest.fixture
def engine(folder_driver: str, own_home: Path, tmp_path: Path) -> Iterator[str]:
    """A host whose engine answers over mutual TLS what an engine answers to GET /version."""

    class Version(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.send_response(200)
            self.end_headers()

        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/version" else 404)
            self.end_headers()
            self.wfile.write(b'{"Version": "26.1.5", "ApiVersion": "1.45"}')

        def log_message(self, *words: object) -> None:
            """Standard error is the test's."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Version) as server:
        machine = made("e1", folder_driver, State.RUNNING, server.server_address[1])
        authority = Authority(machine.store.folders.certs, certs_lock(machine.store))
        authority.ensure()
        bootstrap.copy_client_certs(machine)
        cert, key = authority.issue_server(["127.0.0.1"])
        (tmp_path / "server.pem").write_bytes(cert + key)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=machine.folder.ca)
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_cert_chain(tmp_path / "server.pem")
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield machine.name
        server.shutdown()
        thread.join()
