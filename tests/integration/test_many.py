"""Many machines at once: what is bounded, what is shared, and how their errors are told."""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from machine.errors import EngineUnreachable
from machine.model import Address, EngineInfo, State, TlsFiles
from machine.runtime.docker import api
from machine.runtime.docker.engine import DockerEngine
from machine.store import Store
from tests import machines
from tests.integration.test_cli import machine
from tests.machines import made

pytestmark = pytest.mark.usefixtures("folder_driver", "own_home")


def begun(*words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "machine", *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def until(true: Callable[[], bool]) -> None:
    for _ in range(3000):
        if true():
            return
        time.sleep(0.01)
    raise AssertionError("it did not come to that")


def state_of(name: str) -> Path:
    """The file that the driver reads to know a host's state."""
    return Store().folder(name).root / Store().load(name).ours.id / "state"


def hanging(name: str) -> Path:
    """A machine whose provider does not answer until something is written."""
    file = state_of(made(name, "folder", State.RUNNING).name)
    file.unlink()
    os.mkfifo(file)
    return file


class Asked:
    """Which of the hanging providers are being asked now."""

    def __init__(self, files: list[Path]) -> None:
        self.files = files
        self.writers: list[int] = []

    def look(self) -> int:
        for file in list(self.files):
            with contextlib.suppress(OSError):  # ENXIO: nobody reads it
                self.writers.append(os.open(file, os.O_WRONLY | os.O_NONBLOCK))
                self.files.remove(file)
        return len(self.writers)

    def answer(self, state: State) -> None:
        """One of them."""
        writer = self.writers.pop(0)
        os.write(writer, state.encode())
        os.close(writer)


def test_five_hundred_machines_are_listed() -> None:
    for number in range(500):
        made(f"w{number}", "folder", State.STOPPED)
    listed = machine("ls")
    assert listed.returncode == 0, listed.stderr
    rows = [line.split() for line in listed.stdout.splitlines()[1:]]
    assert [row[0] for row in rows] == [f"w{number}" for number in range(500)]
    assert {row[3] for row in rows} == {"Stopped"}
    assert len(json.loads(machine("ls", "--output", "json").stdout)["data"]) == 500


def test_engines_that_hang_take_nothing_from_those_that_answer() -> None:
    store = Store()
    with machines.silent(100) as silent, machines.answering(store, 5) as good:
        machines.running(store, "folder", "a", silent)  # they come first
        machines.running(store, "folder", "z", good)
        listed = machine("ls", "-t", "4", "-f", "{{.Name}} {{.DockerVersion}} {{.Error}}")
    assert listed.returncode == 0, listed.stderr
    rows = dict(line.split(maxsplit=1) for line in listed.stdout.splitlines())
    assert [rows[f"z{number}"] for number in range(1, 6)] == ["v26.1.5 "] * 5
    for number in range(1, 101):
        assert "did not answer in time" in rows[f"a{number}"]


def test_a_listing_is_one_process_with_few_threads() -> None:
    store = Store()
    with machines.silent(60) as ports:
        machines.running(store, "folder", "w", ports)
        listing = begun("ls", "-t", "3", "-f", "{{.Name}}")
        try:
            status = Path(f"/proc/{listing.pid}/status")
            until(lambda: _established(ports))
            threads = next(line for line in status.read_text().splitlines() if "Threads" in line)
            assert int(threads.split()[1]) <= 3
            for task in Path(f"/proc/{listing.pid}/task").iterdir():
                assert (task / "children").read_text() == ""
        finally:
            out, _ = listing.communicate(timeout=60)
    assert len(out.splitlines()) == 60


def _established(ports: list[int]) -> bool:
    """Whether each of the ports has a connection (proc(5): state 01 in /proc/net/tcp)."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    taken = {int(at.split()[1].split(":")[1], 16) for at in lines if at.split()[3] == "01"}
    return taken.issuperset(ports)


def test_a_provider_that_hangs_holds_neither_the_others_nor_the_end() -> None:
    hanging("f1")
    made("l1", "libvirt", State.STOPPED)  # which libvirt was never asked for
    listed = machine("ls", "-t", "1", "-f", "{{.Name}} {{.State}} {{.Error}}")
    assert listed.stdout.splitlines() == ["f1 Timeout its provider did not answer", "l1 Not Found "]
    assert (listed.returncode, listed.stderr) == (0, "")


@pytest.mark.parametrize("words", [("--parallel", "1"), ("--parallel", "3"), ()])
def test_parallel_is_how_many_are_worked_on(
    words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    bound = int(words[1]) if words else 2
    if not words:
        monkeypatch.setenv("MACHINE_PARALLEL", "2")
    providers = Asked([hanging(f"w{number}") for number in range(4)])
    stopping = begun("kill", *words, *(f"w{number}" for number in range(4)))
    for left in range(4, 0, -1):
        until(lambda left=left: providers.look() == min(bound, left))  # type: ignore[misc]
        providers.answer(State.STOPPED)
    out, err = stopping.communicate(timeout=60)
    lines = [f'Error: Host "w{number}" is already stopped' for number in range(4)]
    assert err.splitlines() == lines  # in the order of the names
    assert (out, stopping.returncode) == ("", 1)


@pytest.mark.parametrize("command", ["create", "start", "rm"])
def test_a_parallel_that_is_none_is_told(command: str) -> None:
    for value in ("0", "many"):
        ran = machine(command, "a", MACHINE_PARALLEL=value)
        assert ran.returncode == 2
        assert "MACHINE_PARALLEL" in ran.stderr
        assert f"{value}" in ran.stderr
        assert machine(command, "--parallel", value, "a").returncode == 2


def test_memory_is_counted_before_anything_is_made() -> None:
    words = ("create", "-d", "folder", "--folder-room", "2500", "a", "b", "c")
    ran = machine(*words)
    assert ran.stderr.splitlines() == [
        "Error with pre-create check: 3 x 1024 MiB of memory are asked for, "
        "and 2500 MiB are available",
        "  There is room for 2 of them. Make fewer, or smaller ones (--folder-memory MIB), or stop "
        "others:",
        "  machine stop NAME",
        "  To make them all the same, add --overcommit",
    ]
    assert (ran.returncode, ran.stdout) == (3, "")
    assert Store().names() == []
    further = machine(*words, "--overcommit", "--folder-root", "/nonexistent")
    assert "/nonexistent is no folder" in further.stderr
    assert "MiB" not in machine(*words[:-1], "--folder-root", "/nonexistent").stderr  # two fit


def test_an_error_that_several_have_is_told_once() -> None:
    ran = machine("create", "-d", "folder", "--folder-root", "/nonexistent", "a", "b")
    told = [line for line in ran.stderr.splitlines() if "pre-create" in line]
    assert told == ["a, b: Error with pre-create check: /nonexistent is no folder"]
    assert ran.returncode == 3  # theirs alike
    assert Store().names() == []
    words = ("create", "-d", "folder", "--folder-root", "/nonexistent", "--output", "json")
    lines = machine(*words, "a", "b").stdout.splitlines()
    errors = [each["data"] for line in lines if (each := json.loads(line))["kind"] == "error"]
    assert [(each["machines"], each["exit_code"]) for each in errors] == [(["a", "b"], 3)]


def test_what_was_removed_is_said_and_every_error_told() -> None:
    for name in ("f1", "f2"):
        made(name, "folder", State.RUNNING)
    folder = Store().folder("broken").root
    folder.mkdir()
    (folder / "config.json").write_text("{")
    ran = machine("rm", "-y", "nosuch", "f1", "broken", "f2")
    said = [line for line in ran.stderr.splitlines() if line[0] not in " (" and "..." not in line]
    assert said[:3] == [
        "About to remove f1, broken, f2",
        "Successfully removed f1",
        "Successfully removed f2",
    ]
    assert said[3] == 'Docker machine "nosuch" does not exist.'
    assert said[4].startswith('Error: The record of "broken" cannot be read')
    assert ran.returncode == 1
    assert Store().names() == ["broken"]
    assert machine("rm", "-f", "nosuch", "broken").returncode == 0


def test_codes_that_differ_are_one() -> None:
    from machine.errors import HostGone, HostNotFound, gathered

    gone = [HostGone("it is gone"), HostGone("this too")]
    assert gathered({"a": gone[0]}).exit_code == 4
    assert gathered({"a": gone[0], "b": gone[1]}).exit_code == 4
    assert gathered({"a": gone[0], "b": HostNotFound("b")}).exit_code == 1


def test_no_machine_is_touched_when_a_name_is_wrong() -> None:
    made("f1", "folder", State.RUNNING)
    ran = machine("stop", "f1", "no1", "no2")
    for name in ("no1", "no2"):
        assert f'Docker machine "{name}" does not exist.' in ran.stderr.splitlines()
    assert ran.returncode == 1
    assert machine("status", "f1").stdout == "Running\n"


def test_a_hundred_are_removed_at_once() -> None:
    for number in range(1, 101):
        made(f"w{number}", "folder", State.STOPPED)
    ran = machine("rm", "-y", "w{1..100}")
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr.count("Successfully removed") == 100
    assert list(Store().folders.machines.iterdir()) == []


def test_a_span_of_names_is_understood_where_the_shell_leaves_it() -> None:
    for name in ("w08", "w09", "w10", "v"):
        made(name, "folder", State.STOPPED)
    assert machine("start", "v", "w{08..10}").returncode != 2
    shown = machine("ip", "w{10..08}", "v")
    assert shown.stdout == "127.0.0.1\n" * 4
    ran = machine("create", "-d", "folder", "--folder-room", "1", "worker{1..5}")
    assert "5 x 1024 MiB" in ran.stderr
    ran = machine("create", "-d", "folder", "a{1..999999999}")
    assert ran.returncode == 2
    assert "is more than 1000 names" in ran.stderr


def test_completion_reads_no_record(monkeypatch: pytest.MonkeyPatch) -> None:
    record = Store().folder("w1").record
    record.parent.mkdir(parents=True)
    os.mkfifo(record)  # whoever opens it waits for ever
    monkeypatch.setenv("_MACHINE_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", "machine stop w")
    assert machine().stdout.splitlines()[0].split("\t")[0] == "w1"


@pytest.fixture
def tls() -> TlsFiles:
    certs = Store().folders.certs
    return TlsFiles(certs / "ca.pem", certs / "cert.pem", certs / "key.pem")


@pytest.fixture
def good(tls: TlsFiles) -> Iterator[int]:
    with machines.answering(Store(), 1) as ports:
        yield ports[0]


def test_an_engine_that_is_asked_without_a_loop_of_its_own(good: int, tls: TlsFiles) -> None:
    """What a third party's engine inherits: each has its share of the time."""

    class Other(DockerEngine):
        @classmethod
        def survey(
            cls, engines: Mapping[str, tuple[Address, TlsFiles]], *, timeout: float
        ) -> Iterator[tuple[str, EngineInfo | EngineUnreachable]]:
            return super(DockerEngine, cls).survey(engines, timeout=timeout)

    with machines.silent(2) as silent:
        ports = {"a": silent[0], "b": silent[1], "c": good}
        targets = {name: (Address("127.0.0.1", engine_port=at), tls) for name, at in ports.items()}
        found = dict(Other.survey(targets, timeout=3))
    assert [type(found[name]) for name in ports] == [EngineUnreachable] * 2 + [EngineInfo]


def _served(answer: bytes, context: ssl.SSLContext | None = None) -> tuple[int, threading.Thread]:
    """A port on which one connection is given an answer, whatever it asks."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with server:
            client, _ = server.accept()
            with client:
                select.select([client], [], [], 20)
                client.recv(1 << 16)
                client.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    return server.getsockname()[1], thread


def test_why_an_engine_cannot_be_asked(good: int, tls: TlsFiles, tmp_path: Path) -> None:
    def why(port: int, files: TlsFiles = tls) -> str:
        with pytest.raises(EngineUnreachable) as caught:
            api.version(Address("127.0.0.1", engine_port=port), files, timeout=2)
        return caught.value.brief

    with machines.silent(1) as ports:
        assert "did not answer in time" in why(ports[0])
    assert "cannot be reached: Connection refused" in why(ports[0])
    port, thread = _served(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    assert "refuses our certificate" in why(port)
    thread.join()
    other = Store(tmp_path / "other")
    with machines.answering(other, 1) as foreign:
        assert "has a certificate that does not fit" in why(foreign[0])
    missing = TlsFiles(tls.ca, tls.cert, tmp_path / "nosuch")
    assert "client certificate cannot be used" in why(good, missing)
