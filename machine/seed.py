"""What a host learns at its first boot: an identity tar for our images, NoCloud for others'."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from machine.errors import BadOption
from machine.model import FirstBoot, GuestFile, Identity, Nic

IDENTITY_LABEL: Final = "machine-identity"
"""What the initramfs looks for: a disk's serial (at most 20 characters on virtio-blk), or the volume
label of a DVD (at most 32)."""
IDENTITY_SIZE: Final = 1 << 20
"""Bytes of that disk, always: a machine that starts from saved memory knows it by the size of then."""
NOCLOUD_LABEL: Final = "machine-seed"
SSHD_CONFIG: Final = """\
HostKey /etc/ssh/ssh_host_ed25519_key
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin no
"""
"""sshd_config(5): the first value of a keyword counts, so ours is the first file that is included;
as in our own images (``_images/debian/finish.sh``)."""
MERGING: Final = "dict(no_replace,recurse_list)+list(append)+str()"
"""How cloud-init lays the template's configuration over ours: lists grow, and what identifies the
host stays ours. By its default a `users` or `write_files` there would replace our own."""


def first_boot(kind: FirstBoot, identity: Identity, nics: Sequence[Nic]) -> tuple[bytes, str]:
    """The first-boot disk's content and its serial. Holds a private key: mode 0600, and removed
    once the host was reached."""
    if kind is FirstBoot.IDENTITY:
        return identity_tar(identity, nics), IDENTITY_LABEL
    return nocloud_iso(identity, nics), NOCLOUD_LABEL


def identity_tar(identity: Identity, nics: Sequence[Nic]) -> bytes:
    """Read by ``_images/debian/init.sh``: what is under root/ is laid over the file system."""
    host = identity.hostname
    files = {
        "instance-id": (f"{identity.machine_id}\n", 0o644),  # first: its content is sector 1
        "root/etc/hostname": (f"{host}\n", 0o644),
        "root/etc/hosts": (_hosts(host), 0o644),
        "root/etc/machine-id": (f"{identity.machine_id}\n", 0o444),
        "root/etc/sudoers.d/machine": (f"{identity.user} ALL=(ALL:ALL) NOPASSWD: ALL\n", 0o440),
        "authorized_keys": ("".join(f"{key}\n" for key in identity.authorized_keys), 0o600),
        "user": (f"{identity.user}\n", 0o644),
        "links": ("".join(_link(number, nic) for number, nic in enumerate(nics)), 0o644),
        "random": (os.urandom(64).hex(), 0o600),
    }
    if identity.host_key:
        files["root/etc/ssh/ssh_host_ed25519_key"] = (identity.host_key, 0o600)
        files["root/etc/ssh/ssh_host_ed25519_key.pub"] = (identity.host_key_public + "\n", 0o644)
    for number, nic in enumerate(nics):
        files[f"root/etc/systemd/network/10-machine{number}.network"] = (_network(nic), 0o644)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, (text, mode) in files.items():
            _add(tar, GuestFile(f"/{name}", text.encode(), mode))
        for file in identity.files:
            _add(tar, replace(file, path=f"/root{file.path}"))
    content = out.getvalue()
    assert len(content) <= IDENTITY_SIZE
    return content.ljust(IDENTITY_SIZE, b"\0")


def identity_iso(identity: Identity, nics: Sequence[Nic]) -> bytes:
    """The identity tar on a DVD, for hypervisors whose disks have no serial of our choice. As secret
    as the tar is."""
    import pycdlib

    content = identity_tar(identity, nics)
    iso = pycdlib.PyCdlib()
    iso.new(vol_ident=IDENTITY_LABEL)
    iso.add_fp(io.BytesIO(content), len(content), "/IDENTITY.TAR;1")  # Linux shows identity.tar
    return _written(iso)


def _written(iso: Any) -> bytes:
    out = io.BytesIO()
    iso.write_fp(out)
    iso.close()
    return out.getvalue()


def _add(tar: tarfile.TarFile, file: GuestFile) -> None:
    member = tarfile.TarInfo(file.path.lstrip("/"))
    if file.link:
        member.type, member.linkname = tarfile.SYMTYPE, file.link
    member.size, member.mode = len(file.content), file.mode
    tar.addfile(member, io.BytesIO(file.content))


def nocloud_iso(identity: Identity, nics: Sequence[Nic]) -> bytes:
    """The NoCloud data source of cloud-init: user-data, meta-data and network-config on a volume
    called CIDATA. JSON is YAML, so no YAML library is needed."""
    import pycdlib

    meta = {"instance-id": identity.machine_id, "local-hostname": identity.hostname}
    iso = pycdlib.PyCdlib()
    iso.new(interchange_level=3, joliet=3, rock_ridge="1.09", vol_ident="cidata")
    for number, (name, text) in enumerate(
        (
            ("user-data", user_data(identity)),
            ("meta-data", json.dumps(meta)),
            ("network-config", json.dumps(_network_config(nics))),
        )
    ):
        content = text.encode()
        iso.add_fp(
            io.BytesIO(content),
            len(content),
            f"/FILE{number}.;1",
            rr_name=name,
            joliet_path=f"/{name}",
        )
    return _written(iso)


def user_data(identity: Identity, extra: str = "") -> str:
    """What cloud-init makes of a host at its first boot, for a provider that hands it over; ``extra``
    is user-data of any kind that the user has beside it. Holds a private key."""
    ours = "#cloud-config\n" + json.dumps(_cloud_config(identity), indent=1)
    return _mime(ours, identity.cloud_init, extra) if identity.cloud_init or extra else ours


def user_file(path: str, option: str) -> str:
    """The user's own user-data, which goes beside ours; "" where no file is named. Raises BadOption
    that begins with ``option``."""
    if not path:
        return ""
    try:
        return Path(path).expanduser().read_text()
    except (OSError, UnicodeDecodeError) as exc:
        raise BadOption(f"{option} cannot be read: {exc}") from None


def _link(number: int, nic: Nic) -> str:
    """For ``ip -batch``, where the card had been somebody else's: what _network says comes later."""
    card = f"dev eth{number}"
    lines = [f"link set {card} address {nic.mac}"]
    if nic.address:
        lines.append(f"address add {nic.address} {card}")
    lines.append(f"link set {card} up")
    if nic.gateway:
        lines.append(f"route add default via {nic.gateway} {card}")
    return "".join(f"{line}\n" for line in lines)


def _hosts(host: str) -> str:
    short = host.split(".")[0]
    names = host if short == host else f"{host} {short}"
    return f"127.0.0.1 localhost\n127.0.1.1 {names}\n::1 localhost ip6-localhost ip6-loopback\n"


def _network(nic: Nic) -> str:
    """systemd.network(5). Matched by MAC address: the order of cards may change."""
    setup = f"Address={nic.address}" if nic.address else "DHCP=ipv4"
    if nic.gateway:
        setup += f"\nGateway={nic.gateway}"
    if nic.dns:
        setup += f"\nDNS={nic.dns}"
    return (
        f"[Match]\nMACAddress={nic.mac}\n\n[Network]\n{setup}\nIPv6AcceptRA=no\n"
        "\n[DHCPv4]\nClientIdentifier=mac\nUseDomains=yes\n"
    )


def _cloud_config(identity: Identity) -> dict[str, Any]:
    return {
        "hostname": identity.hostname,
        "fqdn": identity.hostname,
        "manage_etc_hosts": "localhost",  # sudo asks who it is on, and waits for DNS that is not there
        "disable_root": True,
        "ssh_pwauth": False,
        "ssh_deletekeys": True,
        "ssh_keys": {
            "ed25519_private": identity.host_key,
            "ed25519_public": identity.host_key_public + "\n",
        },
        "write_files": [{"path": "/etc/ssh/sshd_config.d/00-machine.conf", "content": SSHD_CONFIG}],
        "groups": ["docker"],
        "users": [
            {
                "name": identity.user,
                "shell": "/bin/bash",
                "lock_passwd": True,
                "groups": ["docker"],
                "sudo": "ALL=(ALL) NOPASSWD:ALL",
                "ssh_authorized_keys": list(identity.authorized_keys),
            }
        ],
    }


def _network_config(nics: Sequence[Nic]) -> dict[str, Any]:
    """Version 2 of cloud-init's network configuration."""
    cards: dict[str, Any] = {}
    for number, nic in enumerate(nics):
        card: dict[str, Any] = {"match": {"macaddress": nic.mac.lower()}}
        card.update({"addresses": [nic.address]} if nic.address else {"dhcp4": True})
        if nic.gateway:
            card["routes"] = [{"to": "0.0.0.0/0", "via": nic.gateway}]
        if nic.dns:
            card["nameservers"] = {"addresses": [nic.dns]}
        cards[f"machine{number}"] = card
    return {"version": 2, "ethernets": cards}


def _mime(ours: str, template: str, extra: str) -> str:
    """All of them as one multi-part message; cloud-init merges configurations in order, and a
    `merge_how` in a part has its way. What a text/plain part is, cloud-init sees by its first line
    ("#cloud-config", "#!/bin/sh")."""
    from email.mime.multipart import MIMEMultipart
    from email.mime.text import MIMEText

    message = MIMEMultipart()
    for name, text, kind in (
        ("machine", ours, "cloud-config"),
        ("cloud_init of the template", template, "cloud-config"),
        ("user-data of the user", extra, "plain"),
    ):
        if not text:
            continue
        part = MIMEText(text, kind, "utf-8")
        part["Merge-Type"] = MERGING
        part.add_header("Content-Disposition", "attachment", filename=name)
        message.attach(part)
    return message.as_string()
