from __future__ import annotations

import email
import io
import json
import tarfile
from dataclasses import replace
from email import policy

import pycdlib
import pytest

from machine import keys, seed
from machine.model import FirstBoot, GuestFile, Identity, Nic
from machine.paths import shipped_templates


@pytest.fixture
def identity() -> Identity:
    pair = keys.ed25519()
    return Identity(
        hostname="w1.example",
        machine_id="0" * 32,
        user="me",
        authorized_keys=("ssh-ed25519 AAAA me",),
        host_key=pair.private,
        host_key_public=pair.public,
    )


def test_an_identity_tar_holds_who_the_host_is(identity: Identity) -> None:
    content, label = seed.first_boot(
        FirstBoot.IDENTITY,
        identity,
        [Nic("52:54:00:00:00:01"), Nic("52:54:00:00:00:02", "10.0.0.2/24", "10.0.0.1", "10.0.0.1")],
    )
    assert label == seed.IDENTITY_LABEL
    assert len(label) <= 20
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        modes = {member.name: member.mode for member in tar}

        def text(name: str) -> str:
            file = tar.extractfile(name)
            assert file
            return file.read().decode()

        assert text("root/etc/hostname") == "w1.example\n"
        assert "127.0.1.1 w1.example w1\n" in text("root/etc/hosts")
        assert text("user") == "me\n"
        assert text("root/etc/ssh/ssh_host_ed25519_key") == identity.host_key
        assert modes["root/etc/ssh/ssh_host_ed25519_key"] == 0o600
        assert modes["root/etc/sudoers.d/machine"] == 0o440
        assert "MACAddress=52:54:00:00:00:01" in text(
            "root/etc/systemd/network/10-machine0.network"
        )
        second = text("root/etc/systemd/network/10-machine1.network")
        assert "Address=10.0.0.2/24\nGateway=10.0.0.1\nDNS=10.0.0.1\n" in second


CARDS = [Nic("52:54:00:00:00:01"), Nic("52:54:00:00:00:02", "10.0.0.2/24", "10.0.0.1")]


def text_of(content: bytes, name: str) -> str:
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        file = tar.extractfile(name)
        assert file
        return file.read().decode()


def test_an_identity_is_always_of_one_size(identity: Identity) -> None:
    """A machine that starts from saved memory knows the disk by the size that it had then."""
    large = replace(identity, files=(GuestFile("/etc/large", b"x" * 200_000),))
    for each in (identity, large):
        assert len(seed.identity_tar(each, CARDS)) == seed.IDENTITY_SIZE == 1 << 20


def test_its_first_sector_of_content_says_whose_it_is(identity: Identity) -> None:
    """Read without tar by what waits for another identity on the disk."""
    content = seed.identity_tar(identity, CARDS)
    assert content[512:1024].rstrip(b"\0").decode() == identity.machine_id + "\n"


def test_cards_of_another_machine_are_changed_by_lines_for_ip(identity: Identity) -> None:
    assert text_of(seed.identity_tar(identity, CARDS), "links").splitlines() == [
        "link set dev eth0 address 52:54:00:00:00:01",
        "link set dev eth0 up",
        "link set dev eth1 address 52:54:00:00:00:02",
        "address add 10.0.0.2/24 dev eth1",
        "link set dev eth1 up",
        "route add default via 10.0.0.1 dev eth1",
    ]


def test_its_randomness_is_new_each_time(identity: Identity) -> None:
    drawn = {text_of(seed.identity_tar(identity, CARDS), "random") for _ in range(8)}
    assert len(drawn) == 8
    assert {len(bytes.fromhex(each)) for each in drawn} == {64}


def test_files_and_links_of_the_engine_are_laid_over_the_system(identity: Identity) -> None:
    files = (
        GuestFile("/etc/docker/server-key.pem", b"key", mode=0o600),
        GuestFile("/etc/systemd/system/a.wants/b.service", link="/usr/lib/b.service"),
    )
    content = seed.identity_tar(replace(identity, files=files), CARDS)
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        key = tar.getmember("root/etc/docker/server-key.pem")
        link = tar.getmember("root/etc/systemd/system/a.wants/b.service")
        assert {(each.uid, each.gid) for each in tar} == {(0, 0)}
    assert (key.mode, key.size) == (0o600, 3)
    assert (link.issym(), link.linkname) == (True, "/usr/lib/b.service")


def test_an_identity_without_a_host_key_has_none_in_it(identity: Identity) -> None:
    """As that of a machine whose memory is saved."""
    nobody = replace(identity, host_key="", host_key_public="", authorized_keys=())
    content = seed.identity_tar(nobody, CARDS)
    assert b"ssh_host" not in content
    assert text_of(content, "authorized_keys") == ""


def test_a_dvd_holds_the_same_tar(identity: Identity) -> None:
    """Under the name and the label that ``_images/debian/init.sh`` looks for."""
    iso = pycdlib.PyCdlib()
    iso.open_fp(io.BytesIO(seed.identity_iso(identity, CARDS)))
    label = iso.pvd.volume_identifier.decode().rstrip()
    out = io.BytesIO()
    iso.get_file_from_iso_fp(out, iso_path="/IDENTITY.TAR;1")
    iso.close()
    script = (shipped_templates() / "_images" / "debian" / "init.sh").read_text()
    assert f"findfs LABEL={label} " in script
    assert "/dvd/identity.tar" in script
    with (
        tarfile.open(fileobj=io.BytesIO(out.getvalue())) as found,
        tarfile.open(fileobj=io.BytesIO(seed.identity_tar(identity, CARDS))) as expected,
    ):
        assert [(each.name, each.mode, each.size) for each in found] == [
            (each.name, each.mode, each.size) for each in expected
        ]
    assert text_of(out.getvalue(), "root/etc/ssh/ssh_host_ed25519_key") == identity.host_key


def files_of(content: bytes) -> dict[str, str]:
    iso = pycdlib.PyCdlib()
    iso.open_fp(io.BytesIO(content))
    found = {}
    for name in ("user-data", "meta-data", "network-config"):
        out = io.BytesIO()
        iso.get_file_from_iso_fp(out, joliet_path=f"/{name}")
        found[name] = out.getvalue().decode()
    iso.close()
    return found


def test_a_nocloud_disk_pins_the_host_key(identity: Identity) -> None:
    content, _ = seed.first_boot(FirstBoot.CLOUD_INIT, identity, [Nic("52:54:00:00:00:01")])
    found = files_of(content)
    head, _, body = found["user-data"].partition("\n")
    config = json.loads(body)
    assert head == "#cloud-config"
    assert config["ssh_keys"]["ed25519_private"] == identity.host_key
    assert config["users"][0]["name"] == "me"
    assert config["manage_etc_hosts"] == "localhost"
    (sshd,) = config["write_files"]
    assert "PasswordAuthentication no\n" in sshd["content"]
    assert json.loads(found["meta-data"])["local-hostname"] == "w1.example"
    cards = json.loads(found["network-config"])["ethernets"]
    assert cards["machine0"] == {"match": {"macaddress": "52:54:00:00:00:01"}, "dhcp4": True}


def test_a_templates_cloud_init_is_a_part_that_adds_to_ours(identity: Identity) -> None:
    extra = "users:\n  - name: übrig\n"
    content, _ = seed.first_boot(
        FirstBoot.CLOUD_INIT, replace(identity, cloud_init=extra), [Nic("52:54:00:00:00:01")]
    )
    message = email.message_from_string(files_of(content)["user-data"], policy=policy.default)
    ours, theirs = message.iter_parts()
    assert theirs.get_content() == extra
    assert theirs.get_content_type() == "text/cloud-config"
    assert theirs["Merge-Type"] == "dict(no_replace,recurse_list)+list(append)+str()"
    assert json.loads(ours.get_content().partition("\n")[2])["users"][0]["name"] == "me"


def test_an_identity_never_shows_its_private_key(identity: Identity) -> None:
    assert "PRIVATE" not in repr(identity)
    assert "PRIVATE" not in repr(keys.ed25519())
