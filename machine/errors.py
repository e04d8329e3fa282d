"""Every failure a user can meet: one class each, with its exit code and what to type next.

MachineError                    1   brief, details, hint
├── UsageError                  2   the command line or a value in it
│   ├── BadName                 1   (docker-machine's code)
│   └── BadOption
├── PreflightError              3   nothing was made yet
├── HostError
│   ├── HostNotFound
│   ├── HostExists
│   ├── HostNotRunning
│   ├── HostBusy                    another process works on it
│   └── HostGone                4   its provider no longer knows it
├── StoreError                      unreadable, read-only, full
│   └── RecordDamaged
├── TemplateError               2
├── FleetError                  2   a fleet's file, or what it cannot have
├── ImageError
│   ├── ImageNotFound
│   ├── CatalogueError          2   a user's images.toml
│   ├── DownloadFailed              no answer, a refusal, or one that broke off
│   └── DigestMismatch
├── DiskFull                        of the cache
├── ArchiveError                    no container image, a damaged one, or not one that fits
├── BundleError
├── LayerError                      damaged, or open to others
│   └── LayerNotFound
├── DriverError
│   ├── DriverNotFound
│   ├── WarmRefused                 no warm start here; something else is done instead
│   └── Unsupported
├── GuestError                      something went wrong on the host
│   ├── GuestUnreachable
│   ├── HostKeyMismatch
│   └── CommandFailed               also local programs
├── EngineError
│   ├── EngineUnreachable
│   ├── SwarmUnreachable            none of its managers answers
│   └── EngineFull                  no room on its host
├── PortTaken                       of this computer, by another program or its system
├── SecretMissing                   a secret is not where its reference says
├── TimedOut                        which wait, how long, last answer
└── Several                         of machines worked on together: the code that all share, else 1
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path


def lines(*parts: str) -> str:
    """Those that say something, below each other: of a hint, or of details."""
    return "\n".join(part for part in parts if part)


class MachineError(Exception):
    """A failure that is told to the user without a traceback.

    ``brief`` is one line; ``details`` is what the outside world answered; ``hint`` is what to
    type next. ``kind`` (the class name) is what ``--output json`` carries.
    """

    exit_code: int = 1

    def __init__(self, brief: str, *, details: str = "", hint: str = "") -> None:
        super().__init__(brief)
        self.brief = brief
        self.details = details
        self.hint = hint

    @property
    def line(self) -> str:
        """What failed and what was answered, for where there is room for one line."""
        return ": ".join(part for part in (self.brief, self.details) if part)

    @property
    def kind(self) -> str:
        return type(self).__name__


class UsageError(MachineError):
    exit_code = 2


class BadName(UsageError):
    exit_code = 1


class BadOption(UsageError):
    """An option's value cannot be what it should be."""


class PreflightError(MachineError):
    """A check before anything is made failed (docker-machine's exit code 3)."""

    exit_code = 3


class HostError(MachineError):
    """Something about one machine of the store."""


class HostNotFound(HostError):
    def __init__(self, name: str) -> None:
        super().__init__(
            f'Docker machine "{name}" does not exist.',
            hint='Use "machine ls" to list machines, or "machine create" to make one.',
        )


class HostExists(HostError):
    def __init__(self, name: str, hint: str = "") -> None:
        super().__init__(f'Docker machine "{name}" already exists', hint=hint)


class HostNotRunning(HostError):
    def __init__(self, name: str, state: str) -> None:
        super().__init__(f'Host is not running: "{name}" is {state}', hint=f"machine start {name}")


class HostBusy(HostError):
    def __init__(self, name: str) -> None:
        super().__init__(
            f'Another process is working on "{name}"',
            hint="Wait for it to end, then run the same command again.",
        )


class HostGone(HostError):
    exit_code = 4


class StoreError(MachineError):
    """The store cannot be read or written."""


class RecordDamaged(StoreError):
    """config.json is there and cannot be understood; it is left as it is."""


class TemplateError(MachineError):
    exit_code = 2


class FleetError(MachineError):
    exit_code = 2


class ImageError(MachineError):
    pass


class ImageNotFound(ImageError):
    pass


class CatalogueError(ImageError):
    exit_code = 2


class DownloadFailed(ImageError):
    """A server did not give what was asked for; what did arrive is kept."""


class DigestMismatch(ImageError):
    pass


class DiskFull(MachineError):
    """There is no room left for the cache; what was there before is as it was."""

    def __init__(self, folder: Path, *, details: str = "") -> None:
        super().__init__(
            f"There is no room left in {folder}",
            details=details,
            hint=f"df -h {folder}\n"
            "machine image ls shows what could be removed; MACHINE_CACHE_PATH names another folder",
        )


class ArchiveError(MachineError):
    """What was to be a container image is none, is damaged, or does not fit."""


class BundleError(MachineError):
    pass


class LayerError(MachineError):
    pass


class LayerNotFound(LayerError):
    pass


class DriverError(MachineError):
    """The provider refused or failed."""


class DriverNotFound(DriverError):
    def __init__(self, name: str, hint: str = "") -> None:
        super().__init__(f'Driver "{name}" not found.', hint=hint)


class WarmRefused(DriverError):
    """A machine cannot start from saved memory; ``brief`` says why. Made for the caller that then
    starts it cold. ``spent``: nor can any other."""

    def __init__(self, brief: str, *, spent: bool = False) -> None:
        super().__init__(brief)
        self.spent = spent


class Unsupported(DriverError):
    """The driver cannot do this at all."""


class GuestError(MachineError):
    """The host was reached, or should have been, and did not do as asked."""


class GuestUnreachable(GuestError):
    pass


class HostKeyMismatch(GuestError):
    pass


class CommandFailed(GuestError):
    """A program ended with a code other than 0; ``code`` is that code."""

    def __init__(self, brief: str, *, code: int, details: str = "", hint: str = "") -> None:
        super().__init__(brief, details=details, hint=hint)
        self.code = code


class EngineError(MachineError):
    """The container engine refused or failed."""


class EngineUnreachable(EngineError):
    pass


class SwarmUnreachable(EngineError):
    """Nobody can say or change anything of a machine's Swarm; ``answers`` are what was tried."""

    def __init__(self, name: str, answers: Sequence[str]) -> None:
        super().__init__(
            f'No manager of the Swarm of "{name}" answers',
            details="\n".join(answers),
            hint=lines(
                "Most of its managers are on: they choose a leader within half a minute, ask again",
                "Some are off: machine start MANAGER",
                "Too many are lost for good: one that is left can go on alone by machine swarm recover",
            ),
        )


class EngineFull(EngineError):
    """The host's disk has no room for an image."""


class PortTaken(MachineError):
    def __init__(
        self, where: str, why: str = "is in use on this computer", *, details: str = ""
    ) -> None:
        super().__init__(
            f"{where} {why}",
            details=details,
            hint="Choose another port; machine forward shows those that lead to machines",
        )


class SecretMissing(MachineError):
    """Where a secret should be there is none, or it cannot be read."""


class TimedOut(MachineError):
    """A wait reached its limit."""


class Several(MachineError):
    """What went wrong with machines that were worked on together."""

    def __init__(self, errors: Mapping[str, MachineError]) -> None:
        super().__init__("\n".join(f"{name}: {exc}" for name, exc in errors.items()))
        self.errors = errors
        codes = {exc.exit_code for exc in errors.values()}
        self.exit_code = codes.pop() if len(codes) == 1 else 1

    def by_machines(self) -> list[tuple[list[str], MachineError]]:
        """Each error once, with the machines that have it, in the order of the machines."""
        groups: dict[tuple[str, ...], tuple[list[str], MachineError]] = {}
        for name, exc in self.errors.items():
            key = (exc.kind, exc.brief, exc.details, exc.hint)
            groups.setdefault(key, ([], exc))[0].append(name)
        return list(groups.values())


def gathered(errors: Mapping[str, MachineError]) -> MachineError:
    """To be raised: the one error, or Several."""
    return Several(errors) if len(errors) > 1 else next(iter(errors.values()))
