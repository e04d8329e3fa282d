from __future__ import annotations

import pytest

from machine.engine import ServerTls, Settings
from machine.errors import BadOption
from machine.model import Address, BundleKind, EngineOptions, OsRelease
from machine.provision_detect import choose
from machine.provisioner import parse_os_release
from machine.runtime.docker.engine import DockerEngine, merge


def test_the_users_keys_stay_and_the_options_win() -> None:
    present = {"dns": ["9.9.9.9"], "log-level": "info", "labels": ["old=1"]}
    options = EngineOptions(
        labels=("a=b",),
        insecure_registries=("r:5000",),
        storage_driver="overlay2",
        opts=("log-level=debug", "live-restore=true", "max-concurrent-downloads=5", "icc"),
    )
    assert merge(present, options, {"provider": "x"}) == {
        "dns": ["9.9.9.9"],
        "log-level": "debug",
        "labels": ["provider=x", "a=b"],
        "insecure-registries": ["r:5000"],
        "storage-driver": "overlay2",
        "live-restore": True,
        "max-concurrent-downloads": 5,
        "icc": True,
    }


def test_merging_twice_changes_nothing() -> None:
    options = EngineOptions(opts=("dns=1.1.1.1", "dns=9.9.9.9"))
    once = merge({}, options, {"provider": "x"})
    assert once["dns"] == ["1.1.1.1", "9.9.9.9"]
    assert merge(once, options, {"provider": "x"}) == once


def test_what_former_options_had_set_is_taken_back() -> None:
    former = EngineOptions(insecure_registries=("r:5000",), opts=("debug=true", "mtu=1400"))
    present = {**merge({}, former, {}), "mtu": 1300, "icc": False}
    assert merge(present, EngineOptions(), {}, former) == {
        "labels": [],
        "mtu": 1300,  # somebody else's by now
        "icc": False,
    }
    assert merge(present, former, {}, former)["insecure-registries"] == ["r:5000"]


def test_an_option_without_a_key_is_refused() -> None:
    with pytest.raises(BadOption, match="KEY=VALUE"):
        merge({}, EngineOptions(opts=("=x",)), {})


def settings(*env: str, port: int = 2376) -> Settings:
    return Settings(ServerTls(b"ca", b"cert", b"key"), port, EngineOptions(env=env))


def first_boot(kind: BundleKind, *env: str, port: int = 2376) -> str:
    files = DockerEngine.first_boot(kind, settings(*env, port=port))
    (listener,) = [each for each in files if each.path.endswith("10-machine.conf")]
    assert listener.path == "/etc/systemd/system/docker.service.d/10-machine.conf"
    return listener.content.decode()


def test_the_daemons_variables_are_quoted_for_systemd() -> None:
    unit = first_boot(BundleKind.PACKAGES, 'HTTP_PROXY=http://u:p%40@h "x" \\y')
    assert 'Environment="HTTP_PROXY=http://u:p%%40@h \\"x\\" \\\\y"' in unit
    assert "ExecStart=\nExecStart=/usr/sbin/dockerd -H fd:// -H tcp://0.0.0.0:2376 " in unit
    assert "--tlsverify" in unit


def test_the_listener_has_the_port_that_was_asked_for() -> None:
    assert "-H tcp://0.0.0.0:12376 " in first_boot(BundleKind.PACKAGES, port=12376)


def test_only_the_packages_dockerd_is_told_of_a_containerd() -> None:
    socket = "--containerd=/run/containerd/containerd.sock\n"
    assert socket in first_boot(BundleKind.PACKAGES)
    assert "containerd" not in first_boot(BundleKind.STATIC)


def test_urls() -> None:
    assert DockerEngine.url(Address("10.0.0.2")) == "tcp://10.0.0.2:2376"
    assert DockerEngine.url(Address("fd00::2", engine_port=1)) == "tcp://[fd00::2]:1"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ('ID=debian\nVERSION_ID="13"', "debian"),
        ("ID=ubuntu\nID_LIKE=debian", "debian"),
        ("ID=linuxmint\nID_LIKE='ubuntu debian'", "debian"),
        ('ID="rhel"\nID_LIKE="fedora"', "redhat"),
        ('ID="rocky"\nID_LIKE="rhel centos fedora"\nVERSION_ID="9.4"', "redhat"),
        ('ID="ol"\nID_LIKE="fedora"', "redhat"),
        ('ID="amzn"\nID_LIKE="fedora"\nVERSION_ID="2023"', "redhat"),
        ('ID="opensuse-leap"\nID_LIKE="suse opensuse"', "suse"),
        ('ID="opensuse-tumbleweed"\nID_LIKE="opensuse suse"', "suse"),
        ('ID="sles"\nID_LIKE="suse"', "suse"),
        ("ID=alpine\nVERSION_ID=3.20.3", "alpine"),
        ("ID=postmarketos\nID_LIKE=alpine", "alpine"),
        ("ID=arch", "arch"),
        ("ID=manjaro\nID_LIKE=arch", "arch"),
    ],
)
def test_a_system_is_found_by_what_it_is_or_is_like(text: str, name: str) -> None:
    assert choose(parse_os_release(text)).name == name


def test_os_release_is_read_as_its_manual_says() -> None:
    text = '# no\nNAME="A \\"b\\""\nPRETTY_NAME="X = Y"\nID=a\nID_LIKE="b c"\nBROKEN="\n\n'
    assert parse_os_release(text) == OsRelease("a", ("b", "c"), "", "X = Y")
