"""Images onto engines of real hosts. These tests build on each other: what one has sent, another
does not send again; the last ones break the second machine."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import pytest

from tests.container_images import busybox, config, digest, docker_archive, oci_files, tree, written
from tests.hosts import HostBed

BASE: Final = busybox()
APP: Final = tree({"app": os.urandom(300_000)})
OTHER: Final = tree({"other": os.urandom(200_000)})
NOTHING: Final = 100_000
"""Bytes on the wire of a push that sends no layer: TLS, questions and answers."""
STORE: Final = """
systemctl stop docker.socket docker containerd
mount -t tmpfs -o size={size}m tmpfs /var/lib/{folder}
{more}
systemctl start containerd docker
"""
CONTAINERD: Final = (
    """echo '{"features": {"containerd-snapshotter": true}}' >/etc/docker/daemon.json"""
)


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostBed]:
    with HostBed(tmp_path_factory.mktemp("push") / "bed", "m1", "w1") as made:
        with ThreadPoolExecutor() as pool:
            for created in pool.map(made.create, made.hosts):
                assert created.returncode == 0, created.stderr
        yield made


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return docker_archive(tmp_path / "app.tar", {"app:1": [BASE, APP]})


def pushed(bed: HostBed, *words: str) -> dict[str, Any]:
    """What each machine was sent, by its name."""
    said = bed.machine("push", *words, "--output", "json")
    assert said.returncode == 0, said.stdout + said.stderr
    return sent(said.stdout)


def sent(lines: str) -> dict[str, Any]:
    events = [json.loads(line) for line in lines.splitlines()]
    return {each["data"]["machine"]: each["data"] for each in events if each["kind"] == "pushed"}


def counts(told: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    return {name: (each["layers_sent"], each["layers_present"]) for name, each in told.items()}


def received(bed: HostBed, name: str) -> int:
    """Bytes that have gone to a host."""
    card = f"host{bed.hosts[name].number}"
    said = bed.run("ip", "-s", "-j", "link", "show", "dev", card).stdout
    number: int = json.loads(said)[0]["stats64"]["tx"]["bytes"]
    return number


def on(bed: HostBed, name: str, *words: str) -> str:
    said = bed.machine("ssh", name, "sudo", *words)
    assert said.returncode == 0, said.stderr
    return said.stdout.strip()


def prepare(bed: HostBed, script: str) -> None:
    said = bed.machine("ssh", "w1", "sudo", "sh", "-eu", stdin=script)
    assert said.returncode == 0, said.stderr


def test_an_archive_comes_onto_all_machines(bed: HostBed, archive: Path) -> None:
    before = received(bed, "w1")
    told = pushed(bed, str(archive), "m1", "w1")
    assert counts(told) == {"m1": (2, 0), "w1": (2, 0)}
    assert {each["image"] for each in told.values()} == {digest(config([BASE, APP]))}
    assert told["w1"]["layer_bytes"] == len(BASE) + len(APP)
    assert received(bed, "w1") - before > len(BASE) + len(APP)
    for name in ("m1", "w1"):
        identity = on(bed, name, "docker", "inspect", "-f", "{{.Id}}", "app:1")
        assert identity == digest(config([BASE, APP]))
    assert on(bed, "w1", "docker", "run", "--rm", "--network=none", "app:1", "hostname")


def test_the_second_push_sends_nothing(bed: HostBed, archive: Path) -> None:
    before = received(bed, "w1")
    elsewhere = {"REQUESTS_CA_BUNDLE": "/nosuch", "HTTPS_PROXY": "http://127.0.0.1:9"}
    said = bed.machine("push", str(archive), "m1", "w1", env=elsewhere)
    assert said.returncode == 0, said.stderr
    assert "w1: app:1 is sha256:" in said.stderr
    assert "was there: nothing was sent" in said.stderr
    assert received(bed, "w1") - before < NOTHING
    told = pushed(bed, str(archive), "m1", "w1")
    assert counts(told) == {"m1": (0, 2), "w1": (0, 2)}
    assert {each["bytes_sent"] for each in told.values()} == {0}


def test_another_name_is_given_and_nothing_sent(bed: HostBed, archive: Path) -> None:
    told = pushed(bed, str(archive), "w1", "--tag", "docker.io/library/again")
    assert (told["w1"]["names"], told["w1"]["bytes_sent"]) == (["again:latest"], 0)
    names = on(bed, "w1", "docker", "images", "--format={{.Repository}}:{{.Tag}}").split()
    assert sorted(names) == ["again:latest", "app:1"]


def test_of_a_shared_base_only_the_rest_is_sent(bed: HostBed, tmp_path: Path) -> None:
    path = docker_archive(tmp_path / "other.tar", {"other:1": [BASE, OTHER]})
    before = received(bed, "w1")
    told = pushed(bed, str(path), "w{1..1}")
    assert counts(told) == {"w1": (1, 1)}
    assert told["w1"]["layer_bytes"] == len(OTHER)
    assert len(OTHER) < received(bed, "w1") - before < len(OTHER) + NOTHING
    assert on(bed, "w1", "docker", "run", "--rm", "--network=none", "other:1", "hostname")


def test_an_oci_layout_is_sent_compressed_as_it_is(bed: HostBed, tmp_path: Path) -> None:
    layer = tree({"text": b"the same again and again " * 100_000})
    folder = written(tmp_path / "oci", oci_files({"oci:1": [BASE, layer]}))
    told = pushed(bed, str(folder), "m1", "w1")
    assert counts(told) == {"m1": (1, 1), "w1": (1, 1)}
    assert told["w1"]["layer_bytes"] < len(layer) / 10
    assert {each["image"] for each in told.values()} == {digest(config([BASE, layer]))}


def test_from_another_machine(bed: HostBed, tmp_path: Path) -> None:
    layer = tree({"from": b"m1"})
    path = docker_archive(tmp_path / "from.tar", {"from:1": [BASE, layer]})
    pushed(bed, str(path), "m1")
    told = pushed(bed, "--from", "m1", "from:1", "m1", "w1")
    assert counts(told) == {"m1": (0, 2), "w1": (1, 1)}
    assert {each["image"] for each in told.values()} == {digest(config([BASE, layer]))}
    again = bed.machine("push", "--from", "m1", "from:1", "w1")
    assert "Fetching" not in again.stderr
    assert "nothing was sent" in again.stderr
    nameless = bed.machine("push", "--from", "m1", told["m1"]["image"], "w1", "--tag", "by-id")
    assert "by-id:latest is" in nameless.stderr, nameless.stderr
    missing = bed.machine("push", "--from", "m1", "nosuch:1", "w1")
    assert (missing.returncode, 'no image nosuch:1 on "m1"' in missing.stderr) == (1, True)
    assert not list(bed.cache.glob("tmp*"))


def test_one_machine_names_all_of_its_swarm(bed: HostBed, tmp_path: Path) -> None:
    for words in (("init", "m1"), ("join", "w1", "--to", "m1")):
        said = bed.machine("swarm", *words)
        assert said.returncode == 0, said.stderr
    path = docker_archive(tmp_path / "web.tar", {"web:1": [BASE, tree({"web": b"1"})]})
    assert counts(pushed(bed, str(path), "--swarm", "m1")) == {"m1": (1, 1), "w1": (1, 1)}
    assert counts(pushed(bed, str(path), "--swarm", "w1", "m1")) == {"m1": (0, 2), "w1": (0, 2)}


def test_what_does_not_fit_is_refused(bed: HostBed, tmp_path: Path) -> None:
    two = docker_archive(tmp_path / "two.tar", {"one:1": [BASE], "two:1": [BASE, APP]})
    several = bed.machine("push", str(two), "w1")
    assert several.returncode == 1
    assert "several images" in several.stderr
    assert "two:1 (linux/amd64)" in several.stderr
    assert "--only" in several.stderr
    assert counts(pushed(bed, str(two), "--only", "one:1", "w1")) == {"w1": (0, 1)}
    arm = docker_archive(tmp_path / "arm.tar", {"arm:1": [APP]}, "arm64")
    other = bed.machine("push", str(arm), "w1")
    assert "is for linux/arm64, and the machine is linux/amd64" in other.stderr
    assert counts(pushed(bed, str(arm), "--any-platform", "w1")) == {"w1": (1, 0)}
    nameless = bed.machine("push", str(docker_archive(tmp_path / "n.tar", {"": [BASE]})), "w1")
    assert (nameless.returncode, "--tag NAME:TAG" in nameless.stderr) == (2, True)
    assert bed.machine("push", str(arm), "w1", "--tag", "No").returncode == 2


def test_a_damaged_layer_is_found_before_it_is_sent(bed: HostBed, tmp_path: Path) -> None:
    layer = tree({"good": b"good" * 1000})
    path = docker_archive(tmp_path / "bad.tar", {"bad:1": [BASE, layer]})
    path.write_bytes(path.read_bytes().replace(b"good" * 1000, b"evil" * 1000))
    before = received(bed, "w1")
    said = bed.machine("push", str(path), "m1", "w1")
    assert said.returncode == 1
    assert said.stderr.count("The archive is damaged") == 1, said.stderr
    assert "m1, w1: Error" in said.stderr
    assert received(bed, "w1") - before < NOTHING
    assert "bad" not in on(bed, "w1", "docker", "images")


def test_an_image_for_which_there_is_no_room(bed: HostBed, tmp_path: Path) -> None:
    """Where that can be seen nothing is sent; else the engine's own words are told."""
    prepare(bed, STORE.format(size=8, folder="docker", more=""))
    big = docker_archive(tmp_path / "big.tar", {"big:1": [tree({"big": bytes(6 << 20)})]})
    before = received(bed, "w1")
    refused = bed.machine("push", str(big), "m1", "w1")
    assert refused.returncode == 1
    assert 'There is no room for big:1 on "w1"' in refused.stderr
    assert "12 MiB are needed in /var/lib/docker" in refused.stderr
    assert "m1: big:1 is sha256:" in refused.stderr
    assert received(bed, "w1") - before < NOTHING
    grows = oci_files({"big:2": [tree({"big": bytes(30 << 20)})]})
    full = bed.machine("push", str(written(tmp_path / "oci", grows)), "w1")
    assert full.returncode == 1
    assert "disk is full" in full.stderr, full.stderr
    assert "no space left on device" in full.stderr
    assert "big" not in on(bed, "w1", "docker", "images")


def test_an_engine_that_hangs_up_says_why(bed: HostBed, tmp_path: Path) -> None:
    """Its disk is full while the rest of the image is still on its way; only the engine is known,
    so that nobody could look before."""
    folder = str(bed.store / "machines" / "w1")
    words = ("-d", "none", "--url", f"tcp://{bed.hosts['w1'].address}:2376")
    assert bed.machine("create", *words, "--none-tls-folder", folder, "e1").returncode == 0
    big = docker_archive(tmp_path / "big.tar", {"big:1": [tree({"big": bytes(60 << 20)})]})
    said = bed.machine("push", str(big), "e1")
    assert said.returncode == 1
    assert "no space left on device" in said.stderr, said.stderr


def test_an_engine_with_containerd_s_store_gets_all_layers(bed: HostBed, archive: Path) -> None:
    prepare(bed, STORE.format(size=64, folder="containerd", more=CONTAINERD))
    for _ in range(2):
        assert counts(pushed(bed, str(archive), "w1")) == {"w1": (2, 0)}
    assert counts(pushed(bed, "--from", "w1", "app:1", "m1")) == {"m1": (0, 2)}


def test_the_others_go_on_where_one_is_stopped(bed: HostBed, archive: Path) -> None:
    bed.hosts["w1"].cut_off()
    said = bed.machine("push", str(archive), "w1", "m1", "--tag", "last:1", "--output", "json")
    assert said.returncode == 1
    assert counts(sent(said.stdout)) == {"m1": (0, 2)}
    assert "Host is not running" in said.stdout + said.stderr
