"""docker compose against a machine: real Compose, real engines, files and ports where they belong."""

from __future__ import annotations

import base64
import io
import os
import signal
import subprocess
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from machine import tree
from tests.compose import PROGRAM
from tests.hosts import HostBed

PORT = 8090
COMPOSE = """
services:
  web:
    image: box
    command: ["/bin/busybox", "httpd", "-f", "-p", "80", "-h", "/www"]
    stop_grace_period: 0s
    network_mode: bridge
    ports: ["8090:80"]
    volumes:
      - ./www:/www
      - ./made:/made
      - ./single.txt:/single.txt
      - /etc/hostname:/host
"""
LISTENER = """
import socket, sys
with socket.create_server(("127.0.0.1", int(sys.argv[1]))) as server:
    print("ready", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(scope="module")
def bed(two_hosts: HostBed) -> HostBed:
    words = ("run", "m1", "--", "sudo", "docker", "import", "-", "box")
    subprocess.run(
        [*two_hosts.inside(), *two_hosts.tool(), *words],
        input=image(),
        stdout=subprocess.DEVNULL,
        env=two_hosts.environment,
        check=True,
    )
    return two_hosts


def image() -> bytes:
    """A container's file system: busybox, and nothing else."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.add("/bin/busybox", "bin/busybox")
        for name in ("sh", "cat"):
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
    return archive.getvalue()


@dataclass
class Site:
    """A project of a user's, in a folder of this computer."""

    bed: HostBed
    folder: Path

    @property
    def www(self) -> Path:
        return self.folder / "www"

    def words(self, *words: str) -> list[str]:
        enter = ("sh", "-c", 'cd "$0" && exec "$@"', str(self.folder))
        return [*self.bed.inside(), *enter, *self.bed.tool(), "compose", *words]

    def compose(self, *words: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.words(*words),
            capture_output=True,
            text=True,
            env={**self.bed.environment, "PATH": path or found(PROGRAM.parent)},
            timeout=120,
            check=False,
        )

    def there(self, script: str, *words: str) -> str:
        """What a shell on the machine says, as root, in the same folder."""
        shell = ("sudo", "sh", "-euc", f'cd "$0"\n{script}', str(self.folder), *words)
        done = self.bed.machine("run", "m1", "--", *shell)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def served(self, path: str, port: int = PORT) -> str:
        """What the container answers at a port of this computer."""
        script = (
            f"exec 3<>/dev/tcp/127.0.0.1/{port}; "
            f"printf 'GET {path} HTTP/1.0\\r\\n\\r\\n' >&3; timeout 5 cat <&3"
        )
        return self.bed.run("bash", "-c", script).stdout.rpartition("\n\n")[2]

    @contextmanager
    def up(self, log: Path, *options: str) -> Iterator[subprocess.Popen[bytes]]:
        environment = {**self.bed.environment, "PATH": found(PROGRAM.parent)}
        with log.open("wb") as file:
            process = subprocess.Popen(
                self.words(*options, "m1", "--", "up"), stdout=file, stderr=file, env=environment
            )
        try:
            self.bed.wait_for(lambda: self.served("/index.html") != "", 60)
            yield process
        finally:
            process.kill()
            process.wait()


def found(*folders: Path) -> str:
    """A PATH: these first, then the system's own, where no Compose is."""
    return ":".join([*map(str, folders), "/usr/sbin", "/usr/bin", "/sbin", "/bin"])


@pytest.fixture
def site(bed: HostBed, tmp_path: Path) -> Iterator[Site]:
    made = Site(bed, tmp_path / "my site")
    made.www.mkdir(parents=True)
    (made.folder / "compose.yaml").write_text(COMPOSE)
    (made.folder / "single.txt").write_text("single")
    (made.www / "index.html").write_text("first")
    yield made
    assert made.compose("m1", "--", "down", "-t", "0").returncode == 0


def test_a_folder_is_the_same_here_and_by_find(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "a b" / "empty").mkdir(parents=True)
    (root / "a b" / "new\nline").write_text("x")
    (root / "link").symlink_to("../out")
    (root / os.fsdecode(b"\xff")).write_text("")
    os.mkfifo(root / "pipe")
    os.utime(root / "a b" / "new\nline", ns=(1_000_000_007, 1_000_000_007))
    shown = subprocess.run(
        ["find", root, "-printf", tree.LISTING], capture_output=True, check=True
    ).stdout
    there = {path: entry for path, entry in tree.listed(shown).items() if entry.kind != "p"}
    assert tree.scan(root, tree.Rules(lambda path: False)).tree == there
    assert there["a b/new\nline"].mtime == 1_000_000_007


def test_files_are_there_and_ports_here_while_a_project_is_up(site: Site, tmp_path: Path) -> None:
    names = {"two words", "new\nline", "-dash", "ü", os.fsdecode(b"\xff")}
    for name in names:
        (site.www / name).write_text("x")
    (site.folder / ".dockerignore").write_text("**/*.log\n")
    (site.www / "left-out.log").write_text("x")
    (site.www / "out").symlink_to("/nowhere")
    (site.www / "index.html").chmod(0o640)
    os.chown(site.www / "index.html", 1234, 1234)
    with site.up(tmp_path / "log") as process:
        assert site.served("/index.html") == "first"
        listed = base64.b64decode(site.there('find www -mindepth 1 -printf "%P\\0" | base64'))
        wanted = {*map(os.fsencode, names), b"index.html", b"out"}
        assert set(listed.split(b"\0")) == {b"", *wanted}
        assert site.there("stat -c '%u %g %a' www/index.html") == "1234 1234 640\n"
        assert site.there("readlink www/out") == "/nowhere\n"

        (site.www / "index.html").write_text("second")
        (site.www / "deep").mkdir()
        (site.www / "deep" / "new").write_text("new")
        site.bed.wait_for(lambda: site.served("/index.html") == "second")
        site.bed.wait_for(lambda: site.served("/deep/new") == "new")
        (site.folder / ".single.new").write_text("replaced")
        (site.folder / ".single.new").replace(site.folder / "single.txt")
        inside = "docker exec $(docker ps -q -f publish=8090) cat /single.txt"
        site.bed.wait_for(lambda: site.there(inside) == "replaced")

        assert "port 8090" in site.bed.machine("forward", "m1").stdout
        process.send_signal(signal.SIGTERM)
        process.wait(30)
    said = (tmp_path / "log").read_text()
    assert "web: 127.0.0.1:8090\n" in said
    assert "/out -> /nowhere: leads out of" in said
    assert "/etc/hostname is the machine's own" in said
    assert "8090" not in site.bed.machine("forward", "m1").stdout
    assert site.served("/index.html") == ""


def test_a_port_in_use_is_replaced_and_one_whose_owner_was_killed_is_closed(
    site: Site, tmp_path: Path
) -> None:
    words = [*site.bed.inside(), "/usr/bin/python3", "-c", LISTENER, str(PORT)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as listener:
        assert listener.stdout
        listener.stdout.readline()
        ran = site.compose("m1", "--", "run", "--rm", "-T", "web", "cat", "/www/index.html")
        assert ran.stdout == "first"
        assert "(8090 is not free here)" in ran.stderr
        listener.communicate()
    with site.up(tmp_path / "log") as process:
        process.kill()
        process.wait()
        assert "8090" not in site.bed.machine("forward", "m1").stdout
        assert site.served("/index.html") == ""


def test_what_is_removed_changed_on_both_sides_and_brought_back(site: Site) -> None:
    for name in ("gone", "theirs", "both"):
        (site.www / name).write_text("sent")
    assert "sent" in created(site).stderr
    assert created(site).stderr.count(" sent\n") == 0
    site.there("echo made >'www/made there'; echo theirs >www/theirs; echo theirs >www/both")
    site.there("mkdir -p made; echo made >made/file; ln -s / www/root")
    (site.www / "gone").unlink()
    (site.www / "both").write_text("mine")

    assert "www/both: changed here and on m1: left as it is" in created(site).stderr
    assert site.there("cat www/gone www/theirs www/both") == "senttheirs\ntheirs\n"

    back = created(site, "--back", "--delete")
    assert "www/gone removed from m1" in back.stderr
    assert site.there("ls www") == "both\nindex.html\nmade there\nroot\ntheirs\n"
    assert (site.www / "made there").read_text() == "made\n"
    assert (site.www / "theirs").read_text() == "theirs\n"
    assert (site.www / "both").read_text() == "mine"
    assert (site.folder / "made" / "file").read_text() == "made\n"
    assert (site.www / "root").is_symlink()

    created(site, "--overwrite")
    assert site.there("cat www/both www/theirs") == "minetheirs\n"


def created(site: Site, *options: str) -> subprocess.CompletedProcess[str]:
    done = site.compose(*options, "m1", "--", "create")
    assert done.returncode == 0, done.stderr
    return done


def test_a_folder_that_is_left_out_is_the_machines_own_unless_asked_for(site: Site) -> None:
    left_out = created(site, "--exclude", "www")
    assert f"{site.www} is the machine's own" in left_out.stderr
    assert site.there("[ ! -e www ] || ls www") == ""
    created(site, "--exclude", "www", "--sync", str(site.www))
    assert site.there("ls www") == "index.html\n"


def test_all_machines_of_a_swarm_have_the_files(site: Site) -> None:
    try:
        for line in ("init m1", "join w1 --to m1"):
            done = site.bed.machine("swarm", *line.split())
            assert done.returncode == 0, done.stderr
        done = site.compose("--swarm", "w1", "--", "create")
        assert done.returncode == 0, done.stderr
        for name in site.bed.hosts:
            words = ("run", name, "--", "cat", str(site.www / "index.html"))
            assert site.bed.machine(*words).stdout == "first"
        assert "Container" in done.stderr
    finally:
        for name in ("w1", "m1"):
            site.bed.machine("swarm", "leave", "--force", name)


def test_compose_is_a_plugin_or_a_program_or_missing(site: Site, docker: str) -> None:
    """Whatever there is of it is asked for its version first."""
    missing = site.compose("m1", "--", "ps", path=found())
    assert missing.returncode == 3
    assert "There is no Docker Compose on this computer" in missing.stderr
    assert "apt-get install" in missing.stderr

    plugins = site.bed.home / ".docker" / "cli-plugins"
    plugins.mkdir(parents=True)
    (plugins / PROGRAM.name).symlink_to(PROGRAM)
    asked = site.compose("m1", "--", "version", path=found(Path(docker).parent))
    assert asked.returncode == 0, asked.stderr
    assert "Docker Compose version" in asked.stdout

    unknown = site.compose("m1", "--", "nonsense")
    assert unknown.returncode not in (0, 1)
    assert "nonsense" in unknown.stderr
    (site.folder / "compose.yaml").write_text("services: [")
    broken = site.compose("m1", "--", "up")
    assert broken.returncode == 1
    assert "Compose cannot read the project" in broken.stderr
    (site.folder / "compose.yaml").write_text(COMPOSE)


def test_codes_and_words_are_composes_own(site: Site) -> None:
    words: Sequence[str] = ("run", "--rm", "-T", "web", "sh", "-c", 'echo "$0"; exit 7', "a b")
    done = site.compose("m1", "--", *words)
    assert (done.stdout, done.returncode) == ("a b\n", 7)
