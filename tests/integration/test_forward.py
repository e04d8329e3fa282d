"""Ports of this computer that lead to a machine, and programs run on several: on real hosts."""

from __future__ import annotations

import json
import signal
import subprocess

import pytest

from tests.hosts import HostBed

WORDS = ("two words", "$HOME", "it's", "", "*", "new\nline", "--help", "-D", "--output=json", "ü")


@pytest.fixture
def bed(two_hosts: HostBed) -> HostBed:
    return two_hosts


def greeting(bed: HostBed, port: int) -> str:
    """What answers at a port of this computer."""
    words = ("bash", "-c", f"timeout 5 head -c 8 </dev/tcp/127.0.0.1/{port}")
    return bed.run(*words).stdout


def states(bed: HostBed, *names: str) -> dict[int, str]:
    listed = bed.machine("forward", *names, "--output", "json")
    assert listed.returncode == 0, listed.stderr
    return {each["local"]: each["state"] for each in json.loads(listed.stdout)["data"]}


def test_a_forward_outlives_its_terminal_and_is_listed_and_ended(bed: HostBed) -> None:
    """The terminal's end is SIGHUP for every process of its session that is still in it."""
    script = 'setsid sh -c \'"$@"; kill -HUP -$$\' sh "$@"'
    opened = bed.run("sh", "-c", script, "sh", *bed.tool(), "forward", "m1", "8022:22", "0:22")
    first, second = opened.stdout.split()
    assert first == "127.0.0.1:8022"
    assert greeting(bed, 8022) == "SSH-2.0-"
    assert greeting(bed, int(second.rpartition(":")[2])) == "SSH-2.0-"
    again = bed.machine("forward", "m1", "8022:22")
    assert again.stdout == f"{first}\n"
    assert "m1" in bed.machine("forward").stdout
    ended = bed.machine("forward", "--stop", "m1", "8022")
    assert "does not lead" in ended.stderr
    assert greeting(bed, 8022) == ""
    assert list(states(bed).values()) == ["open"]
    assert bed.machine("forward", "--stop", "m1").returncode == 0
    assert states(bed) == {}


def test_a_host_behind_the_machine(bed: HostBed) -> None:
    opened = bed.machine("forward", "m1", f"8023:{bed.hosts['w1'].address}:22")
    assert opened.returncode == 0, opened.stderr
    assert greeting(bed, 8023) == "SSH-2.0-"
    assert bed.machine("forward", "--stop", "m1").returncode == 0


def test_a_port_that_is_in_use_is_said_and_left_alone(bed: HostBed) -> None:
    assert bed.machine("forward", "w1", "8024:22").returncode == 0
    other = bed.machine("forward", "m1", "8024:22")
    assert other.returncode == 1
    assert "127.0.0.1:8024 is in use" in other.stderr
    own = bed.machine("forward", "w1", "8024:2376")
    assert "It leads to port 22 of w1" in own.stderr
    assert states(bed) == {8024: "open"}
    assert bed.machine("forward", "--stop", "w1", "1").returncode == 1
    assert bed.machine("forward", "--stop", "w1").returncode == 0


@pytest.mark.parametrize("words", [("m1", "0"), ("m1", "80:"), ("m1", "x:80"), ("m1", "65536:1")])
def test_what_is_no_port_is_said(bed: HostBed, words: tuple[str, ...]) -> None:
    refused = bed.machine("forward", *words)
    assert refused.returncode == 2
    assert "names no port" in refused.stderr


def test_words_arrive_as_they_were_typed(bed: HostBed) -> None:
    script = 'printf "%s\\0" "$@"; echo said >&2; exit 7'
    done = bed.machine("run", "m1", "--", "sh", "-c", script, "sh", *WORDS)
    assert done.stdout == "".join(f"{word}\0" for word in WORDS)
    assert done.stderr == "said\n"
    assert done.returncode == 7
    assert bed.machine("run", "m1", "--", "cat", stdin="in").stdout == "in"


def test_several_machines_are_told_apart(bed: HostBed) -> None:
    script = 'hostname; hostname >&2; test "$(hostname)" = m1 || exit 3'
    done = bed.machine("run", "m1", "w1", "--", "sh", "-c", script)
    assert sorted(done.stdout.splitlines()) == ["m1 | m1", "w1 | w1"]
    assert {"m1 | m1", "w1 | w1", "w1: ended with code 3"} == set(done.stderr.splitlines())
    assert done.returncode == 1
    assert bed.machine("run", "m1", "w1", "--", "sh", "-c", "exit 4").returncode == 4


def test_what_is_missing_of_a_run_is_said(bed: HostBed) -> None:
    for words in (("m1", "ls"), ("m1", "--"), ("--", "ls")):
        refused = bed.machine("run", *words)
        assert refused.returncode == 2
        assert "machine run NAME -- " in refused.stderr


def test_the_output_of_a_run_may_be_cut_off(bed: HostBed) -> None:
    words = [*bed.inside(), *bed.tool(), "run", "m1", "--", "yes"]
    with subprocess.Popen(words, env=bed.environment, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130


def test_a_forward_is_dead_when_its_machine_was_cut_off(bed: HostBed) -> None:
    assert bed.machine("forward", "w1", "8025:22").returncode == 0
    bed.hosts["w1"].cut_off()
    bed.hosts["w1"].start()
    bed.wait_for(lambda: states(bed, "w1") == {8025: "dead"}, 60)
    assert "open it again" in bed.machine("forward").stderr
    assert bed.machine("forward", "w1", "8025:22").returncode == 0
    assert states(bed, "w1") == {8025: "open"}
    assert greeting(bed, 8025) == "SSH-2.0-"
    assert bed.machine("forward", "--stop", "w1").returncode == 0


def test_the_forwards_of_a_machine_end_with_it(bed: HostBed) -> None:
    options = bed.hosts["w1"].options
    assert bed.machine("create", *options, "--register", "gone").returncode == 0
    assert bed.machine("forward", "gone", "8026:22").returncode == 0
    assert bed.machine("rm", "-y", "gone").returncode == 0
    assert greeting(bed, 8026) == ""
