"""What is wrong with this computer or the store: each finding with what to type."""

from __future__ import annotations

import datetime
import shutil
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from machine import command, image_build, registry
from machine.driver import Finding
from machine.errors import MachineError
from machine.host import Host
from machine.record import Record
from machine.store import Store

SOON: Final = datetime.timedelta(days=30)
"""How long before its end a certificate is worth a word."""


def examine(store: Store, drivers: Sequence[str], *, fix: bool) -> list[Finding]:
    """Findings of the store, of the programs that are used, and of each named driver. With ``fix``
    what is safe to mend is mended; nothing else is changed. Raises DriverNotFound."""
    records, damaged = _records(store)
    found = [*damaged]
    for name, record in records.items():
        found += _unfinished(name, record)
    found += _certificates(store, list(records))
    found += _open_keys(store, fix=fix)
    found += _leftovers(store, fix=fix)
    if not found:
        found = [Finding("ok", "store", f"{store.root}: {len(records)} machines")]
    found += _programs()
    ids = frozenset(each.block.id for each in records.values() if each.block is not None)
    for name in drivers:
        cls = registry.driver(name)
        ours = [each for each in records.values() if each.driver_name == name and each.block]
        found += cls.findings(store.root, ids, fix=fix)
        found += cls.strays([Host(store, each).driver for each in ours], ids)
    return found


def _records(store: Store) -> tuple[dict[str, Record], list[Finding]]:
    records, damaged = {}, []
    for name in store.names():
        try:
            records[name] = store.load(name)
        except MachineError as exc:
            damaged.append(Finding("error", f"machine {name}", exc.brief, exc.hint))
    return records, damaged


def _unfinished(name: str, record: Record) -> Iterator[Finding]:
    if record.block is not None and not record.block.journal.finished:
        yield Finding(
            "warning",
            f"machine {name}",
            f'its create has not ended (step "{record.block.journal.step}")',
            f"machine create --resume {name}   or   machine rm {name}",
        )


def _certificates(store: Store, names: Sequence[str]) -> Iterator[Finding]:
    """Those that have ended or soon will; a machine's own are renewed without touching others."""
    certs = store.folders.certs
    wanted = [
        (certs / "ca.pem", "it signs every machine's certificate; make a new store before that"),
        (certs / "cert.pem", "machine regenerate-certs --client-certs NAME"),
        *((store.folder(name).server_cert, f"machine regenerate-certs {name}") for name in names),
    ]
    now = datetime.datetime.now(datetime.UTC)
    for path, remedy in wanted:
        if not path.exists():
            continue
        try:
            end = _expiry(path)
        except MachineError as exc:
            yield Finding("error", "store", exc.brief, remedy)
            continue
        if end < now + SOON:
            word = "ended" if end < now else "ends"
            level = "error" if end < now else "warning"
            yield Finding(
                level, "store", f"the certificate {path} {word} on {end:%Y-%m-%d}", remedy
            )


def _expiry(path: Path) -> datetime.datetime:
    from machine.tls import expiry

    return expiry(path)


def _open_keys(store: Store, *, fix: bool) -> Iterator[Finding]:
    """Private keys that others than their owner may read: ssh itself refuses such a key."""
    keys = [*store.root.glob("certs/*key.pem"), *store.root.glob("machines/*/*key.pem")]
    keys += store.root.glob("machines/*/id_*[!b]")  # not *.pub
    keys += store.root.glob("machines/*/secret-*")
    for path in sorted(keys):
        if not stat.S_IMODE(path.stat().st_mode) & 0o077:
            continue
        if fix:
            path.chmod(0o600)
            yield Finding("ok", "store", f"{path} is its owner's alone again", fixed=True)
        else:
            text = f"the private key {path} may be read by others"
            yield Finding("warning", "store", text, f"chmod 600 {path}")


def _leftovers(store: Store, *, fix: bool) -> Iterator[Finding]:
    """What a removal that was cut off could not delete any more."""
    for path in sorted(store.folders.machines.glob(".gone-*")):
        if fix:
            shutil.rmtree(path, ignore_errors=True)
            yield Finding("ok", "store", f"{path} was left of a removal and is gone", fixed=True)
        else:
            yield Finding("warning", "store", f"{path} is left of a removal", f"rm -r {path}")


def _programs() -> Iterator[Finding]:
    if command.which("ssh") is None:
        yield Finding(
            "warning",
            "programs",
            "there is no ssh program: an interactive login needs it",
            "sudo apt-get install openssh-client",
        )
    missing = [package for name, package in image_build.PROGRAMS.items() if not command.which(name)]
    if missing:
        yield Finding(
            "warning",
            "programs",
            "images cannot be built from packages here",
            f"sudo apt-get install {' '.join(missing)}",
        )
