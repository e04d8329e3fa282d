"""What a machine does in its life, the same wherever it lives: each mode's tests run these on theirs,
with fixtures ``place`` (the test bed) and ``worker`` (the machine's name)."""

from __future__ import annotations

import shutil
import subprocess
from typing import ClassVar

from tests.e2e.testbed import Bed


class Use:
    """What a machine is used for while it runs."""

    def test_ssh_passes_code_streams_and_input(self, place: Bed, worker: str) -> None:
        ran = place.machine("ssh", worker, "cat; echo wrong >&2; exit 42", stdin="given\n")
        assert (ran.returncode, ran.stdout, ran.stderr) == (42, "given\n", "wrong\n")

    def test_a_command_ends_while_standard_input_stays_open(self, place: Bed, worker: str) -> None:
        argv = [*place.inside(), *place.tool(), "ssh", worker, "echo out; exit 7"]
        pipe, env = subprocess.PIPE, place.environment
        with subprocess.Popen(
            argv, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=env, cwd="/"
        ) as process:
            assert process.stdout
            assert process.stderr
            ended = (process.wait(60), process.stdout.read(), process.stderr.read())
        assert ended == (7, "out\n", "")

    def test_files_go_there_and_back(self, place: Bed, worker: str) -> None:
        tree, back = place.home / "tree", place.home / "back"
        (tree / "in side").mkdir(parents=True)
        (tree / "in side" / "ü.txt").write_text("text")
        (tree / "run").write_bytes(b"#!/bin/sh\necho ran\n")
        (tree / "run").chmod(0o755)
        (tree / "big").write_bytes(b"0123456789abcdef" * 200_000)
        there = place.machine("scp", "-r", "-q", str(tree), f"{worker}:copied")
        assert there.returncode == 0, there.stderr
        assert place.machine("ssh", worker, "copied/run").stdout == "ran\n"
        copied = place.machine("scp", "-r", "-q", f"{worker}:copied", str(back))
        assert copied.returncode == 0, copied.stderr
        for name in ("in side/ü.txt", "run", "big"):
            assert (back / name).read_bytes() == (tree / name).read_bytes()
        assert (back / "run").stat().st_mode & 0o777 == 0o755
        folder = place.machine("scp", str(tree), f"{worker}:")
        assert folder.returncode == 1
        assert "Add -r" in folder.stderr
        missing = place.machine("scp", f"{worker}:nosuch", str(place.home))
        assert missing.returncode == 1
        assert "there is no such file or folder" in missing.stderr
        shutil.rmtree(tree)
        shutil.rmtree(back)

    def test_provisioning_again_changes_nothing(self, place: Bed, worker: str) -> None:
        started = "systemctl show -P ActiveEnterTimestamp docker"
        before = place.machine("ssh", worker, started).stdout
        again = place.machine("provision", worker)
        assert again.returncode == 0, again.stderr
        assert "nothing had to change" in again.stderr
        assert place.machine("ssh", worker, started).stdout == before


class Stopped(Use):
    """With the stop of one that keeps its address."""

    disk_gib: ClassVar[int | None] = None
    """What its disk grows to, where that can be seen in the guest."""

    def test_it_stops_and_starts_with_the_same_address_and_another_size(
        self, place: Bed, worker: str
    ) -> None:
        url = place.machine("url", worker).stdout
        stopped = place.machine("stop", worker)
        assert stopped.returncode == 0, stopped.stderr
        assert place.machine("status", worker).stdout == "Stopped\n"
        for words in (("env", worker), ("ssh", worker, "true"), ("url", worker)):
            refused = place.machine(*words)
            assert (refused.returncode, refused.stdout) == (1, "")
            assert "Host is not running" in refused.stderr
        assert "already stopped" in place.machine("stop", worker).stderr
        disk = ("--disk", str(self.disk_gib)) if self.disk_gib else ()
        resized = place.machine("resize", "--cpus", "2", "--memory", "1280", *disk, worker)
        assert resized.returncode == 0, resized.stderr
        started = place.machine("start", worker)
        assert started.returncode == 0, started.stderr
        assert place.machine("url", worker).stdout == url
        assert place.machine("config", worker).returncode == 0
        asked = "nproc; awk '/MemTotal/{print $2}' /proc/meminfo; df --output=size -BG / | tail -1"
        cpus, memory_kib, disk_size = place.machine("ssh", worker, asked).stdout.split()
        assert cpus == "2"
        assert 1100 < int(memory_kib) >> 10 < 1280
        if self.disk_gib:
            assert self.disk_gib - 2 <= int(disk_size.rstrip("G")) <= self.disk_gib


def restart(place: Bed, worker: str) -> None:
    """It keeps its address, and it is another boot."""
    url = place.machine("url", worker).stdout
    boot = place.machine("ssh", worker, "cat /proc/sys/kernel/random/boot_id").stdout
    restarted = place.machine("restart", worker)
    assert restarted.returncode == 0, restarted.stderr
    assert place.machine("url", worker).stdout == url
    assert place.machine("config", worker).returncode == 0
    again = place.machine("ssh", worker, "cat /proc/sys/kernel/random/boot_id").stdout
    assert again != boot
