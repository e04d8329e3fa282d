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
from machine.model import FirstBoot, Identity, Nic


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
