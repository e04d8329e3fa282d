"""A folder of this computer, present at the same path of a machine: sent, fetched, and never half."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Final

from machine import parcel, tree
from machine.tree import Entry, Rules, Scan, Tree

if TYPE_CHECKING:
    from machine.ssh import SshGuest

NOTES: Final = "/var/lib/machine/sync"
"""Where a machine keeps what it was sent: a disk that goes back in time takes it along."""
LIST: Final = """
find --version 2>/dev/null | grep -q GNU ||
    { echo 'GNU find is needed there, and GNU tar (Alpine: apk add findutils tar).' >&2; exit 1; }
[ -e "$1" ] || [ -L "$1" ] || exit 0
find "$1" -printf "$2" || true  # what goes away meanwhile is no failure
"""
RECEIVE: Final = """
parent=$1 name=$2
mkdir -p -- "$parent"
find "$parent" -maxdepth 1 -name '.machine-????????' -mmin +60 -exec rm -rf {} +
beside=$(mktemp -d -- "$parent/.machine-XXXXXXXX")
trap 'rm -rf -- "$beside"' EXIT
tar -xpf - --numeric-owner --same-owner -C "$beside"
cd -- "$beside"
if [ -f "./$name" ] && [ -f "$parent/$name" ] && [ ! -L "$parent/$name" ]; then
    # A container that has a single file mounted has this one, whatever takes its name.
    cat "./$name" >"$parent/$name"
    chmod --reference="./$name" -- "$parent/$name"
    touch --reference="./$name" -- "$parent/$name"
    exit
fi
find "./$name" \\( -type d -exec sh -c '
    [ -d "$0/$1" ] && [ ! -L "$0/$1" ] &&
        find "$1" -mindepth 1 -maxdepth 1 ! -type d -print0 | xargs -0 -r mv -f -t "$0/$1" --
' "$parent" {} \\; \\) -o -prune -print0 |
    xargs -0 -r sh -c 'for each; do mv -fT -- "$each" "$0/$each" || exit 255; done' "$parent"
"""
REMOVE: Final = """
cd -- "$1"
xargs -0 -r sh -c 'for each; do
    if [ -d "$each" ] && [ ! -L "$each" ]; then rmdir --ignore-fail-on-non-empty -- "$each"
    else rm -f -- "$each"; fi || exit 255
done' sh
"""
GIVE: Final = """
cd -- "$1"
tar -cf - --format=pax --numeric-owner --ignore-failed-read --no-recursion --null -T -
"""
CHANGED: Final = 1
"""tar's code for a file that changed while it was read (its manual, "Return Code")."""
TRIES: Final = 5
LIMIT: Final = 1800


@dataclass(slots=True)
class Outcome:
    """What was done with one folder; paths are relative to it."""

    moved: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    clash: list[str] = field(default_factory=list)
    restless: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    leaving: list[tuple[str, str]] = field(default_factory=list)
    size: int = 0


@dataclass(frozen=True, slots=True)
class Synced:
    """A folder, or a single file."""

    root: Path
    rules: Rules

    @property
    def there(self) -> PurePosixPath:
        return PurePosixPath(self.root)

    @property
    def _place(self) -> tuple[str, str]:
        return str(self.there.parent), self.there.name

    def send(
        self,
        guest: SshGuest,
        *,
        delete: bool = False,
        overwrite: bool = False,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> Outcome:
        """Make what differs there what it is here. ``progress`` is told bytes done and bytes in all.
        Raises GuestError, and OSError for a disk of this computer that is full."""
        scan = tree.scan(self.root, self.rules)
        if not scan.tree:
            return Outcome()
        there, sent = self._there(guest), self._sent(guest)
        plan = tree.to_send(scan.tree, there, sent, delete=delete, overwrite=overwrite)
        if delete:
            plan.remove = [path for path in plan.remove if not self.rules.ignore(path)]
        outcome = self._outcome(scan, plan)
        now = {path: entry for path, entry in there.items() if path not in plan.remove}
        if plan.remove:
            self._remove(guest, plan.remove)
        total = sum(scan.tree[path].size for path in plan.send)
        for each in parcel.packed(self.root.resolve(), self.there.name, plan.send):
            self._ask(guest, RECEIVE, *self._place, stdin=each.archive)
            now |= each.packed
            outcome.moved += each.packed
            outcome.restless += each.restless
            outcome.unreadable += each.unreadable
            outcome.size += each.size
            progress(outcome.size, total)
        self._note(guest, sent, tree.agreed({**scan.tree, **_of(outcome.moved, now)}, now, sent))
        return outcome

    def fetch(self, guest: SshGuest) -> Outcome:
        """Bring here what was made or changed there. Raises GuestError, OSError."""
        scan = tree.scan(self.root, self.rules)
        there, sent = self._there(guest), self._sent(guest)
        plan = tree.to_fetch(scan.tree, there, sent, self.rules)
        outcome = Outcome(clash=plan.clash)
        if plan.send:
            with tempfile.TemporaryFile() as archive:
                outcome.restless = self._given(guest, plan.send, archive)
                if not outcome.restless:
                    outcome.moved = parcel.unpack(archive, self.root, self.there.name, plan.send)
        now = tree.scan(self.root, self.rules).tree
        self._note(guest, sent, tree.agreed(now, there, sent))
        return outcome

    def _outcome(self, scan: Scan, plan: tree.Plan) -> Outcome:
        return Outcome(
            removed=plan.remove,
            clash=plan.clash,
            unreadable=scan.unreadable,
            leaving=list(tree.leaving(self.there, _of(plan.send, scan.tree))),
        )

    def _there(self, guest: SshGuest) -> dict[str, Entry]:
        return tree.listed(self._ask(guest, LIST, str(self.there), tree.LISTING))

    def _remove(self, guest: SshGuest, paths: Sequence[str]) -> None:
        self._ask(guest, REMOVE, str(self.there.parent), stdin=self._names(paths))

    def _given(self, guest: SshGuest, paths: Sequence[str], archive: IO[bytes]) -> list[str]:
        """Fill the archive; answers the paths where something changed each time that it was read."""
        words = ("sh", "-euc", GIVE, "sh", str(self.there.parent))
        for _ in range(TRIES):
            archive.seek(0)
            archive.truncate()
            names = self._names(paths)
            code = guest.pipe(
                *words, sudo=True, stdin=names, stdout=archive, timeout=LIMIT, accept=(0, CHANGED)
            )
            archive.seek(0)
            if code != CHANGED:
                return []
        return list(paths)

    def _names(self, paths: Sequence[str]) -> io.BytesIO:
        """As seen from the folder that the root is in. Each ends in NUL, and none looks like an
        option."""
        name = self.there.name
        full = (f"./{name}/{path}" if path else f"./{name}" for path in paths)
        return io.BytesIO(b"".join(os.fsencode(each) + b"\0" for each in full))

    def _notes(self) -> str:
        return f"{NOTES}/{hashlib.sha256(str(self.there).encode()).hexdigest()[:32]}.json"

    def _sent(self, guest: SshGuest) -> dict[str, Entry]:
        """What the two agreed in; nothing where that is not known any more."""
        raw = guest.get(self._notes(), sudo=True)
        try:
            return tree.from_json(json.loads(raw)["sent"]) if raw else {}
        except (ValueError, KeyError, TypeError):
            return {}

    def _note(self, guest: SshGuest, before: Tree, sent: Tree) -> None:
        if sent != before:
            text = json.dumps({"root": str(self.there), "sent": tree.as_json(sent)})
            guest.put(text.encode(), self._notes(), mode=0o600)

    def _ask(
        self, guest: SshGuest, script: str, *words: str, stdin: IO[bytes] | None = None
    ) -> bytes:
        answer = io.BytesIO()
        argv = ("sh", "-euc", script, "sh", *words)
        guest.pipe(*argv, sudo=True, stdin=stdin or io.BytesIO(), stdout=answer, timeout=LIMIT)
        return answer.getvalue()


def _of(paths: Sequence[str], entries: Tree) -> dict[str, Entry]:
    return {path: entries[path] for path in paths}
