"""`machine bundle` as a user meets it, with archives made on the spot."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path

import pytest

from tests import archives
from tests.integration.files_server import FilesServer
from tests.integration.test_cli import machine

NAME = "docker-static-28.0.1-x86_64"
BUILD = ("bundle", "build", "docker", "--kind", "static", "--arch", "x86_64")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return archives.docker(tmp_path / "docker-28.0.1.tgz")


@pytest.fixture
def bundles(own_home: Path) -> Path:
    return own_home / ".cache" / "machine" / "bundles"


def test_a_bundles_life(source: Path, bundles: Path) -> None:
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    built = machine(*BUILD, "--from", str(source), "--sha256", digest)
    assert built.returncode == 0, built.stderr
    assert built.stdout == hashlib.sha256((bundles / f"{NAME}.tar").read_bytes()).hexdigest() + "\n"
    assert f"Made {NAME}: docker 28.0.1 for any distribution, x86_64" in built.stderr
    assert "Warning" not in built.stderr

    (row,) = machine("bundle", "ls").stdout.splitlines()[1:]
    assert row.split()[:4] == [NAME, "static", "28.0.1", "any"]
    (listed,) = json.loads(machine("bundle", "ls", "--output", "json").stdout)["data"]
    shown = json.loads(machine("bundle", "show", NAME).stdout)["data"]
    assert listed == shown
    assert shown["files"] == [["archive/docker-28.0.1.tgz", digest]]

    assert machine("bundle", "verify", NAME).stderr == f"{NAME} is as it was made\n"
    verified = json.loads(machine("bundle", "verify", NAME, "--output", "json").stdout)
    assert verified["data"] == shown
    removed = json.loads(machine("bundle", "rm", NAME, "--output", "json").stdout)
    assert (removed["kind"], removed["data"]) == ("removed", {"name": NAME})
    assert machine("bundle", "ls", "--output", "json").stdout.endswith('"data": []\n}\n')
    assert machine("bundle", "rm", NAME).returncode == 1


def test_an_archive_by_its_location(source: Path, bundles: Path) -> None:
    content = source.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    server = FilesServer()
    try:
        server.files["/docker-28.0.1.tgz"] = content
        location = ("--from", f"{server.url}/docker-28.0.1.tgz")
        wrong = machine(*BUILD, *location, "--sha256", "0" * 64)
        assert wrong.returncode == 1
        assert "is not what its checksum says" in wrong.stderr
        built = machine(*BUILD, *location, "--sha256", digest.upper())
    finally:
        server.close()
    assert built.returncode == 0, built.stderr
    shown = json.loads(machine("bundle", "show", NAME).stdout)["data"]
    assert shown["files"] == [["archive/docker-28.0.1.tgz", digest]]
    assert not list((bundles / ".downloads").iterdir())


def test_building_as_json_ends_with_the_bundle(source: Path) -> None:
    built = machine(*BUILD, "--from", str(source), "--output", "json")
    lines = [json.loads(line) for line in built.stdout.splitlines()]
    assert [line["kind"] for line in lines] == ["StepStarted", "StepEnded", "bundle"]
    assert lines[-1]["data"]["name"] == NAME
    failed = machine(*BUILD, "--from", "nosuch-1.tgz", "--output", "json")
    error = json.loads(failed.stdout.splitlines()[-1])
    assert (error["kind"], error["data"]["kind"]) == ("error", "BundleError")


def test_building_again_replaces_it(source: Path) -> None:
    first = machine(*BUILD, "--from", str(source)).stdout
    archives.docker(source, ctr=archives.program() + b"more")
    second = machine(*BUILD, "--from", str(source)).stdout
    assert first != second
    (row,) = json.loads(machine("bundle", "ls", "--output", "json").stdout)["data"]
    assert row["sha256"] == second.strip()


def test_a_damaged_bundle_is_told_and_can_be_removed(source: Path, bundles: Path) -> None:
    assert machine(*BUILD, "--from", str(source)).returncode == 0
    with (bundles / f"{NAME}.tar").open("r+b") as file:
        file.seek(3000)
        file.write(b"x")
    verified = machine("bundle", "verify", NAME)
    assert verified.returncode == 1
    assert verified.stderr.startswith(f"Error: The bundle {NAME} is damaged\n")
    assert f"machine bundle rm {NAME}" in verified.stderr
    (bundles / f"{NAME}.json").write_text("{")
    listed = machine("bundle", "ls")
    assert listed.returncode == 0
    assert f"Warning: The bundle {NAME} is damaged" in listed.stderr
    assert machine("bundle", "rm", NAME).returncode == 0
    assert machine("bundle", "ls").stderr == ""


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        ((), 2, "is made from upstream's archive: --from FILE"),
        (("--from", "https://example.org/docker-1.tgz"), 2, "with the --sha256 that it must have"),
        (("--from", "ftp://example.org/docker-1.tgz", "--sha256", "0" * 64), 2, "--from URL"),
        (("--from", "docker-28.0.1.tgz"), 1, "docker-28.0.1.tgz cannot be taken over: No such"),
        (("--from", "x.tgz"), 1, "The name x.tgz does not say which version it is"),
        (("--from", "x.tgz", "--version", "../1"), 1, "does not say which version"),
        (("--from", "x.tgz", "--sha256", "abc"), 2, "must be 64 hexadecimal digits"),
        (("--from", "x.tgz", "--os", "debian"), 2, "--os and --os-version go with --kind packages"),
        (("--kind", "packages", "--from", "x.tgz"), 2, "go with --kind static"),
        (("--kind", "snap"), 2, "--kind is 'snap', and must be packages or static"),
        (("--arch", "vax"), 2, "--arch is 'vax', and must be x86_64 or aarch64"),
    ],
)
def test_what_is_wrong_is_told(words: tuple[str, ...], code: int, line: str) -> None:
    ran = machine(*BUILD, *words)
    assert line in ran.stderr
    assert "Traceback" not in ran.stderr
    assert ran.stdout == ""
    assert ran.returncode == code


def test_what_upstream_does_not_make_is_refused(source: Path, tmp_path: Path) -> None:
    source.write_text("<html>404</html>")
    refused = machine(*BUILD, "--from", str(source))
    assert refused.returncode == 1
    assert "is no tar archive in gzip, or not all of it" in refused.stderr
    archives.docker(source, dockerd=b"")
    refused = machine(*BUILD, "--from", str(source))
    assert "does not hold docker/dockerd" in refused.stderr
    assert "https://download.docker.com/linux/static/stable/x86_64/" in refused.stderr
    assert machine("bundle", "ls", "-h").returncode == 0
    assert json.loads(machine("bundle", "ls", "--output", "json").stdout)["data"] == []


def test_packages_that_no_recipe_knows(own_home: Path) -> None:
    refused = machine("bundle", "build", "docker", "--os", "plan9", "--os-version", "4")
    assert refused.returncode == 1
    assert "cannot be built here" in refused.stderr
    assert 'bundle = "static"' in refused.stderr


def test_one_package_is_unpacked(bundles: Path, tmp_path: Path) -> None:
    name = "packages/docker.io_26.1.5_amd64.deb"
    held = {"name": name, "size": 3, "sha256": hashlib.sha256(b"deb").hexdigest()}
    described = {
        "engine": "docker",
        "version": "26.1.5",
        "kind": "packages",
        "os_id": "debian",
        "os_version": "13",
        "arch": "x86_64",
        "files": [held],
        "sha256": "",
    }
    bundles.mkdir(parents=True)
    (bundles / "docker-debian-13.json").write_text(json.dumps(described))
    with tarfile.open(bundles / "docker-debian-13.tar", "w") as tar:
        member = tarfile.TarInfo(name)
        member.size = 3
        tar.addfile(member, io.BytesIO(b"deb"))
    words = ("bundle", "unpack", "docker-debian-13", "--to", str(tmp_path / "new" / "folder"))
    unpacked = machine(*words, "--member", "docker.io")
    assert unpacked.returncode == 0, unpacked.stderr
    assert Path(unpacked.stdout.strip()).read_bytes() == b"deb"
    missing = machine(*words, "--member", "docker")
    assert missing.returncode == 1
    assert "holds no package docker" in missing.stderr


def test_a_template_names_a_kind_that_there_is(tmp_path: Path) -> None:
    template = tmp_path / "t.toml"
    template.write_text('base = ["debian-13"]\nbundle = "statik"\n')
    refused = machine("template", "validate", str(template))
    assert refused.returncode == 2
    assert f"{template}:2: bundle: is 'statik', and must be packages or static" in refused.stderr
    template.write_text('base = ["debian-13"]\nbundle = "static"\n')
    assert machine("template", "validate", str(template)).returncode == 0
