"""Whether a host's own firewall keeps the engine's port from others, and the commands that open it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from machine import filter_rules
from machine.command import Result
from machine.filter_rules import DROP, Connection

if TYPE_CHECKING:
    from machine.guest import Guest

NFT_FILES: Final = ("/etc/nftables.conf", "/etc/sysconfig/nftables.conf", "/etc/nftables.nft")
"""Where Debian and Arch, the Red Hat family, and Alpine keep what is loaded at every boot."""
IPTABLES: Final = ("iptables", "iptables-legacy")
IPTABLES_FILES: Final = (
    "/etc/iptables/rules.v4",
    "/etc/sysconfig/iptables",
    "/etc/iptables/rules-save",
)
"""Likewise: Debian's iptables-persistent, the Red Hat family's iptables-services, Alpine."""


@dataclass(frozen=True, slots=True)
class Obstacle:
    """A firewall that lets nobody reach a port. The commands are for root's shell."""

    firewall: str  # "firewalld", "ufw", "nftables", "iptables"
    text: str  # what it does, in a sentence
    opening: tuple[str, ...]  # for every boot first, then now; () where it is not for us to open
    closing: tuple[str, ...]  # take that back; twice is fine
    lasting: bool = True  # False: it is closed again after a restart


def look(guest: Guest, port: int) -> list[Obstacle]:
    """Changes nothing. firewalld and ufw write the rules of the others, and are asked instead of
    them. IPv6 is not looked at."""
    connection = Connection(port, _interface(guest))
    state, status = guest.ask(("firewall-cmd", "--state"), ("ufw", "status", "verbose"), sudo=True)
    if state.ok and state.stdout.strip() == "running":
        return list(_firewalld(guest, connection))
    if status.ok and "Status: active" in status.stdout:
        return list(ufw(status.stdout, port))
    rules, *filters = guest.ask(
        ("nft", "-j", "list", "ruleset"),
        ("cat", "/proc/net/ip_tables_names"),
        *((program, "-V") for program in IPTABLES),
        sudo=True,
    )
    return [*_nftables(guest, connection, rules), *_iptables(guest, connection, *filters)]


def open_port(guest: Guest, obstacle: Obstacle) -> None:
    """Raises CommandFailed. Whoever may undo it has noted ``closing`` before."""
    for command in obstacle.opening:
        guest.script(command, sudo=True)


def close_port(guest: Guest, closing: Sequence[str]) -> None:
    """Take an opening back. A firewall that is not there any more has nothing to close."""
    for command in closing:
        guest.script(command, sudo=True, check=False)


def _interface(guest: Guest) -> str:
    """Where this login arrived: the interface with the address that sshd was reached at (ssh(1):
    SSH_CONNECTION); "" where that cannot be told."""
    login, shown = guest.ask(("sh", "-c", 'echo "${SSH_CONNECTION-}"'), ("ip", "-o", "-4", "addr"))
    reached = login.stdout.split()
    if len(reached) != 4 or ":" in reached[2]:
        return ""
    found = re.search(rf"^\d+: (\S+) +inet {re.escape(reached[2])}/", shown.stdout, re.MULTILINE)
    return found[1] if found and found[1] != "lo" else ""


def _firewalld(guest: Guest, connection: Connection) -> Iterator[Obstacle]:
    def ask(*words: str) -> str:
        return guest.run("firewall-cmd", *words, sudo=True, check=False).stdout.strip()

    zone = ""
    if connection.interface:
        zone = ask(f"--get-zone-of-interface={connection.interface}")
    zone = zone or ask("--get-default-zone")
    shown = ask(f"--zone={zone}", "--list-all")
    target = ask("--permanent", f"--zone={zone}", "--get-target")
    yield from firewalld(zone, shown, target, connection.port)


def firewalld(zone: str, shown: str, target: str, port: int) -> Iterator[Obstacle]:
    """From what firewall-cmd says of the zone: --list-all, and --permanent --get-target."""
    ports = ""
    for line in shown.splitlines():
        key, _, value = line.strip().partition(": ")
        if key == "ports":
            ports = value
    for each in ports.split():
        number, _, protocol = each.partition("/")
        low, _, high = number.partition("-")
        if protocol == "tcp" and int(low) <= port <= int(high or low):
            return
    if target == "ACCEPT":
        return
    words = f"firewall-cmd --quiet --zone={zone}"
    yield Obstacle(
        "firewalld",
        f'firewalld lets nobody reach TCP port {port}: its zone "{zone}" does not list it',
        opening=(
            f"firewall-cmd --quiet --permanent --zone={zone} --add-port={port}/tcp",
            f"{words} --add-port={port}/tcp",
        ),
        closing=(
            f"firewall-cmd --quiet --permanent --zone={zone} --remove-port={port}/tcp",
            f"{words} --remove-port={port}/tcp",
        ),
    )


def ufw(shown: str, port: int) -> Iterator[Obstacle]:
    """From `ufw status verbose` of one that is active. The first rule for a port decides, and
    those for one sender or one interface decide nothing here."""
    default = re.search(r"^Default: (\w+) \(incoming\)", shown, re.MULTILINE)
    rules = re.findall(
        r"^(\S+) +(ALLOW|DENY|REJECT|LIMIT)(?: IN)? +Anywhere *(?:#.*)?$", shown, re.MULTILINE
    )
    for where, action in rules:
        if not _ufw_is_for(where, port):
            continue
        if action in ("DENY", "REJECT"):
            yield Obstacle(
                "ufw", f"A rule of ufw's forbids TCP port {port}: {where} {action}", (), ()
            )
        return
    if default and default[1] == "allow":
        return
    yield Obstacle(
        "ufw",
        f"ufw lets nobody reach TCP port {port}: it denies what no rule of its allows",
        opening=(f"ufw allow {port}/tcp >/dev/null",),
        closing=(f"ufw delete allow {port}/tcp >/dev/null",),
    )


def _ufw_is_for(where: str, port: int) -> bool:
    """Whether a rule's "To" ("22", "80,443/tcp", "1000:2000/tcp", "Anywhere") is for the port."""
    numbers, _, protocol = where.partition("/")
    if protocol not in ("", "tcp"):
        return False
    if numbers == "Anywhere":
        return True
    for each in numbers.split(","):
        low, _, high = each.partition(":")
        if low.isdecimal() and int(low) <= port <= int(high or low):
            return True
    return False


def _nftables(guest: Guest, connection: Connection, shown: Result) -> Iterator[Obstacle]:
    if not shown.ok:
        return
    try:
        bases = filter_rules.nft(shown.stdout, connection)
    except (ValueError, LookupError, TypeError, AttributeError):
        return  # an older nft's JSON; the engine's own answer is waited for anyway
    port = connection.port
    mark = f"machine-{port}"
    for base in bases:
        if base.verdict != DROP:
            continue
        insert = f'insert rule {base.name} tcp dport {port} accept comment "{mark}"'
        file = _first_with(guest, NFT_FILES, f"table {base.family} {base.table}")
        at_boot = (f"echo '{insert}' >> {file}",) if file else ()
        handles = rf"sed -n 's/.*comment \"{mark}\" # handle \([0-9]*\)$/\1/p'"
        yield Obstacle(
            "nftables",
            f'nftables lets nobody reach TCP port {port}: its chain "{base.name}" drops what '
            "no rule of its accepts",
            opening=(*at_boot, f"nft '{insert}'"),
            closing=(
                *((f"sed -i '/comment \"{mark}\"$/d' {file}",) if file else ()),
                f"nft -a list chain {base.name} | {handles} | "
                f"while read handle; do nft delete rule {base.name} handle $handle; done",
            ),
            lasting=bool(file),
        )


def _iptables(
    guest: Guest, connection: Connection, tables: Result, *versions: Result
) -> Iterator[Obstacle]:
    for program, version in zip(IPTABLES, versions, strict=True):
        legacy = "legacy" in version.stdout
        if not version.ok or (program == "iptables-legacy" and not legacy):
            continue
        # To ask a legacy table that is not there would make it.
        if legacy and "filter" not in tables.stdout:
            continue
        shown = guest.run(program, "-S", sudo=True, check=False)
        if shown.ok and filter_rules.iptables(shown.stdout, connection) == DROP:
            yield _iptables_obstacle(guest, program, connection.port)
        if legacy:
            return


def _iptables_obstacle(guest: Guest, program: str, port: int) -> Obstacle:
    mark = f"machine-{port}"
    rule = f"-p tcp -m tcp --dport {port} -m comment --comment {mark} -j ACCEPT"
    file = _first_with(guest, IPTABLES_FILES, ":INPUT ")
    place = r"/^\*filter/,/^COMMIT/"
    return Obstacle(
        "iptables",
        f"iptables lets nobody reach TCP port {port}: no rule of INPUT accepts it",
        opening=(
            *((f"sed -i '{place}{{/^:INPUT /a -A INPUT {rule}\n}}' {file}",) if file else ()),
            f"{program} -I INPUT 1 {rule}",
        ),
        closing=(
            *((f"sed -i '/--comment {mark} /d' {file}",) if file else ()),
            f"while {program} -D INPUT {rule} 2>/dev/null; do :; done",
        ),
        lasting=bool(file),
    )


def _first_with(guest: Guest, files: Sequence[str], text: str) -> str:
    """The first of the files that has the text in it; "" if none has."""
    looked = guest.ask(*(("grep", "-qF", text, path) for path in files), sudo=True)
    return next((path for path, found in zip(files, looked, strict=True) if found.ok), "")
