"""The contract of a shell for `machine env`: a module with these three functions."""

from __future__ import annotations

from typing import Protocol


class Shell(Protocol):
    """What every module in ``machine.shells`` (and a third party's) provides."""

    def assign(self, name: str, value: str) -> str:
        """One line that sets a variable, the value quoted so that the shell gives it back unchanged."""
        ...

    def unset(self, name: str) -> str:
        """One line that removes a variable."""
        ...

    def hint(self, command: str) -> str:
        """Comment lines that show how to evaluate ``command``'s output, each with its newline."""
        ...
