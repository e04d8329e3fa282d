"""What a host was like before its first change, kept on the host itself, and the way back to it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Final

from machine import firewall
from machine.engine import Engine, Footprint
from machine.errors import CommandFailed, GuestError
from machine.provisioner import Provisioner, ServiceState
from machine.runtime.bundle import discard

if TYPE_CHECKING:
    from machine.guest import Guest

HOME: Final = "/var/lib/machine"
FOLDER: Final = f"{HOME}/before"
UPGRADE: Final = f"{HOME}/before-upgrade"
"""Of an upgrade that is at work, or was cut off (``machine/fallback.py``)."""
VERSION: Final = 1
_BEFORE, _OPENED, _PACKAGES, _BEGUN = "before.json", "opened.json", "packages.json", "undoing"

# What is half made is called otherwise: whoever is killed in here begins again.
_COPY: Final = """
umask 077
trap 'rm -rf {folder}.new; rmdir {home} 2>/dev/null || true' EXIT
rm -rf {folder}.new
mkdir -p {folder}.new/files
for path in {paths}; do
    [ -e "$path" ] || [ -L "$path" ] || continue
    mkdir -p {folder}.new/files"${{path%/*}}"
    cp -a "$path" {folder}.new/files"$path"
done
printf '%s\\n' {facts} > {folder}.new/{about}
mv -T {folder}.new {folder}
"""
_MISSING: Final = 'for path in {paths}; do [ -e "$path" ] || [ -L "$path" ] || echo "$path"; done\n'
_CHANGED: Final = """
facts() {{ stat -c '%f %u %g' "$1" 2>/dev/null || true; readlink "$1" || true; }}
for path in {paths}; do
    old={folder}/files$path
    if [ -e "$old" ] || [ -L "$old" ]; then
        [ "$(facts "$old")" = "$(facts "$path")" ] && {{ [ -L "$old" ] || cmp -s "$old" "$path"; }} ||
            echo "$path"
    elif [ -e "$path" ] || [ -L "$path" ]; then
        echo "$path"
    fi
done
"""
_BACK: Final = """
for path in {paths}; do
    old={folder}/files$path
    if [ -e "$old" ] || [ -L "$old" ]; then
        mkdir -p "${{path%/*}}"
        new=${{path%/*}}/.${{path##*/}}.machine
        rm -rf "$new"
        cp -a "$old" "$new"
        mv -fT "$new" "$path"
    else
        rm -f "$path"
    fi
done
"""
_TIDY: Final = 'for path in {paths}; do rmdir "$path" 2>/dev/null || true; done\n'
_FORGET: Final = """
rm -rf {folder} {folder}.new {upgrade} {upgrade}.new
rmdir {home} 2>/dev/null || true
"""


def keep(guest: Guest, provisioner: Provisioner, engine: Engine) -> bool:
    """Called before anything of a host is changed that was there before; True if there is no such
    list yet. Twice is fine: the first one counts. Only root can read it, for it has copies of
    whatever was in the engine's files."""
    footprint = engine.footprint()
    folders = sorted(_parents(footprint), reverse=True)  # what is in another comes first
    absent = _ask(guest, _MISSING, [FOLDER, *folders, *footprint.trees])
    if FOLDER not in absent:
        return False
    states = provisioner.service_states(footprint.units)
    before = {
        "version": VERSION,
        "files": list(footprint.files),
        "folders": [path for path in folders if path in absent],
        "trees": [path for path in footprint.trees if path in absent],
        "units": {unit: state and [state.enabled, state.active] for unit, state in states.items()},
        "group": provisioner.has_group(footprint.group),
        "packages": dict(provisioner.packages()),
    }
    copy_files(guest, FOLDER, footprint.files, _BEFORE, before)
    return True


def copy_files(
    guest: Guest, folder: str, paths: Iterable[str], about: str, facts: Mapping[str, Any]
) -> None:
    """Make a folder with copies of the files that are there, links as links, and a file about
    them. It appears as a whole."""
    script = _COPY.format(
        folder=folder,
        home=HOME,
        paths=shlex.join(paths),
        facts=shlex.quote(json.dumps(facts, indent=1)),
        about=about,
    )
    guest.script(script, sudo=True)


def put_files_back(guest: Guest, folder: str, paths: Iterable[str]) -> None:
    """Each as ``copy_files`` found it, or gone. Twice is fine."""
    text = _BACK.format(folder=folder, paths=shlex.join(paths))
    guest.script(text, sudo=True, timeout=300)


def note_packages(guest: Guest, names: Iterable[str]) -> None:
    """Called before packages are installed: only these are ours to remove again. Nothing is noted
    on a host that has no list."""
    if guest.run("test", "-d", FOLDER, sudo=True, check=False).ok:
        _write(guest, f"{FOLDER}/{_PACKAGES}", sorted({*names, *_read(guest, _PACKAGES, [])}))


def open_port(guest: Guest, obstacle: firewall.Obstacle) -> None:
    """Open it, having noted first how it is closed again. Raises CommandFailed."""
    if guest.run("test", "-d", FOLDER, sudo=True, check=False).ok:
        noted = _read(guest, _OPENED, [])
        entry = [obstacle.firewall, *obstacle.closing]
        _write(guest, f"{FOLDER}/{_OPENED}", [*noted, *([] if entry in noted else [entry])])
    firewall.open_port(guest, obstacle)


def undo(guest: Guest, provisioner: Provisioner, engine: Engine) -> list[str]:
    """Put the host back to what the list says, and remove the list; answers what was done, a line
    each. Cut off, it goes on when it is called again; on a host without a list it does nothing.
    What an engine has stored is never removed. Raises GuestError."""
    before = _read(guest, _BEFORE, None)
    if before is None:
        return ["Nothing is put back: the host has no list of what was there before"]
    if before.get("version") != VERSION:
        raise GuestError(f"{FOLDER} on the host was written by another version of this tool")
    return list(_Undoing(guest, provisioner, engine, before).lines())


class _Undoing:
    def __init__(
        self, guest: Guest, provisioner: Provisioner, engine: Engine, before: Mapping[str, Any]
    ) -> None:
        self.guest = guest
        self.provisioner = provisioner
        self.footprint = engine.footprint()
        self.before = before
        self.files: list[str] = before["files"]
        self.noted: list[str] = _read(guest, _PACKAGES, [])

    def lines(self) -> Iterator[str]:
        yield from self._close_ports()
        changed = _ask(self.guest, _CHANGED, self.files)
        packages = self._ours()
        begun = f"{FOLDER}/{_BEGUN}"
        if changed or packages:
            self.guest.run("touch", begun, sudo=True)
        touched = self.guest.run("test", "-e", begun, sudo=True, check=False).ok
        yield from self._stop()
        yield from self._remove_packages(packages)
        yield from self._remove_trees()
        changed |= _ask(
            self.guest, _CHANGED, self.files
        )  # packages may take files of the user's away
        put_files_back(self.guest, FOLDER, changed)
        gone = _ask(self.guest, _MISSING, changed)
        for path in sorted(changed):
            yield f"{path} is gone again" if path in gone else f"{path} is as it was before"
        self._script(_TIDY, self.before["folders"])
        yield from self._remove_group()
        self.provisioner.reload_services()
        yield from self._start(touched=touched)
        yield from self._left()
        discard(self.guest)
        forget = _FORGET.format(folder=FOLDER, upgrade=UPGRADE, home=HOME)
        self.guest.script(forget, sudo=True)

    def _close_ports(self) -> Iterator[str]:
        for name, *closing in _read(self.guest, _OPENED, []):
            firewall.close_port(self.guest, closing)
            yield f"What was opened in {name} is closed again"

    def _was(self, unit: str) -> ServiceState:
        state = self.before["units"].get(unit)
        return ServiceState(*state) if state else ServiceState(enabled=False, active=False)

    def _stop(self) -> Iterator[str]:
        """What did not run or not start at a boot, while its definition is still there."""
        for unit, state in self.provisioner.service_states(self.footprint.units).items():
            was = self._was(unit)
            if state and state.active and not was.active:
                self.provisioner.stop_service(unit)
                yield f"{unit} is stopped"
            if state and state.enabled and not was.enabled:
                self.provisioner.disable_service(unit)
                yield f"{unit} does not start at a boot any more"

    def _ours(self) -> set[str]:
        """Packages of the bundle's that were not there before, and are now."""
        return set(self.noted) & set(self.provisioner.packages()) - set(self.before["packages"])

    def _remove_packages(self, names: set[str]) -> Iterator[str]:
        self.provisioner.remove_packages(names)
        if self.footprint.erasers:
            self.guest.run("rm", "-f", *self.footprint.erasers, sudo=True)
        self.provisioner.purge_packages(self.noted)
        now = self.provisioner.packages()
        if gone := sorted(names - set(now)):
            yield f"Packages removed: {', '.join(gone)}"
        if kept := sorted(names & set(now)):
            yield f"Packages that others need now stay: {', '.join(kept)}"
        was = self.before["packages"]
        for name in self.noted:
            if name in was and name in now and was[name] != now[name]:
                yield f"{name} stays at {now[name]}; it was {was[name]} before"

    def _remove_trees(self) -> Iterator[str]:
        trees: list[str] = self.before["trees"]
        for tree in sorted(set(trees) - _ask(self.guest, _MISSING, trees)):
            self.guest.run("rm", "-rf", tree, sudo=True)
            yield f"{tree} is gone again"

    def _remove_group(self) -> Iterator[str]:
        name = self.footprint.group
        if self.before["group"] or not self.provisioner.has_group(name):
            return
        try:
            self.provisioner.remove_group(name)
        except CommandFailed as exc:
            yield f"The group {name} stays: {exc.details.strip().splitlines()[-1]}"
        else:
            yield f"The group {name} is gone again"

    def _start(self, *, touched: bool) -> Iterator[str]:
        """What ran or started at a boot; first what was last to be stopped."""
        for unit in reversed(self.footprint.units):
            state, was = self.provisioner.service_state(unit), self._was(unit)
            if state and was.enabled and not state.enabled:
                self.provisioner.enable_service(unit)
                yield f"{unit} starts at every boot again"
            if state and was.active and (not state.active or touched):
                if not unit.endswith(".service") and state.active:
                    continue
                self.provisioner.restart_service(unit, timeout=300)
                yield f"{unit} runs as before"

    def _left(self) -> Iterator[str]:
        gone = _ask(self.guest, _MISSING, self.footprint.data)
        for path in self.footprint.data:
            if path not in gone:
                yield f"{path} is left as it is: remove it by hand if nobody needs what is in it"

    def _script(self, script: str, paths: Iterable[str]) -> None:
        text = script.format(folder=FOLDER, paths=shlex.join(paths))
        self.guest.script(text, sudo=True, timeout=300)


def _parents(footprint: Footprint) -> set[str]:
    """Folders that come to be with all that, down from those that every system has."""
    found = {HOME, *footprint.folders}
    for path in (*footprint.files, *footprint.trees, *footprint.folders):
        found |= {str(each) for each in PurePosixPath(path).parents if len(each.parts) > 2}
    return found


def _ask(guest: Guest, script: str, paths: Iterable[str]) -> set[str]:
    text = script.format(folder=FOLDER, paths=shlex.join(paths))
    return set(guest.script(text, sudo=True).stdout.splitlines())


def _read(guest: Guest, name: str, default: Any) -> Any:
    content = guest.get(f"{FOLDER}/{name}", sudo=True)
    with suppress(ValueError):
        return default if content is None else json.loads(content)
    raise GuestError(f"{FOLDER}/{name} on the host is damaged")


def _write(guest: Guest, path: str, value: Any) -> None:
    guest.put(json.dumps(value, indent=1).encode() + b"\n", path, mode=0o600)
