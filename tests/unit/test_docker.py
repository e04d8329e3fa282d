from __future__ import annotations

import pytest

from machine.errors import BadOption
from machine.model import Address, EngineOptions, OsRelease
from machine.provision_detect import choose
from machine.provisioner import parse_os_release
from machine.runtime.docker.engine import DockerEngine, drop_in, merge


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


def test_an_option_without_a_key_is_refused() -> None:
    with pytest.raises(BadOption, match="KEY=VALUE"):
        merge({}, EngineOptions(opts=("=x",)), {})


def test_the_daemons_variables_are_quoted_for_systemd() -> None:
    unit = drop_in("/usr/sbin/dockerd", ('HTTP_PROXY=http://u:p%40@h "x" \\y',))
    assert 'Environment="HTTP_PROXY=http://u:p%%40@h \\"x\\" \\\\y"' in unit
    assert "ExecStart=\nExecStart=/usr/sbin/dockerd " in unit
    assert "--tlsverify" in unit


def test_only_the_packages_dockerd_is_told_of_a_containerd() -> None:
    assert "--containerd=/run/containerd/containerd.sock\n" in drop_in("/usr/sbin/dockerd", ())
    assert "containerd" not in drop_in("/usr/local/bin/dockerd", (), containerd="")


def test_urls() -> None:
    assert DockerEngine.url(Address("10.0.0.2")) == "tcp://10.0.0.2:2376"
    assert DockerEngine.url(Address("fd00::2", engine_port=1)) == "tcp://[fd00::2]:1"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ('ID=debian\nVERSION_ID="13"', "debian"),
        ("ID=ubuntu\nID_LIKE=debian", "debian"),
        ("ID=linuxmint\nID_LIKE='ubuntu debian'", "debian"),
    ],
)
def test_a_system_is_found_by_what_it_is_or_is_like(text: str, name: str) -> None:
    assert choose(parse_os_release(text)).name == name


def test_os_release_is_read_as_its_manual_says() -> None:
    text = '# no\nNAME="A \\"b\\""\nPRETTY_NAME="X = Y"\nID=a\nID_LIKE="b c"\nBROKEN="\n\n'
    assert parse_os_release(text) == OsRelease("a", ("b", "c"), "", "X = Y")
