"""One thing that is checked: what it means, how to look oneself, and its verdicts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from machine.model import Outcome, Verdict

PID: Final = "pid=$(sudo docker inspect -f '{{.State.Pid}}' CONTAINER)"
"""How a user finds a container's first process, as the host sees it."""


@dataclass(frozen=True, slots=True)
class Lesson:
    name: str
    explanation: str
    look: tuple[str, ...]  # typed on the host

    def ok(self, text: str, *evidence: str) -> Verdict:
        return self._verdict(Outcome.OK, text, evidence)

    def failed(self, text: str, *evidence: str) -> Verdict:
        return self._verdict(Outcome.FAILED, text, evidence)

    def not_applicable(self, text: str, *evidence: str) -> Verdict:
        return self._verdict(Outcome.NOT_APPLICABLE, text, evidence)

    def _verdict(self, outcome: Outcome, text: str, evidence: tuple[str, ...]) -> Verdict:
        return Verdict(self.name, outcome, text, evidence, self.look, self.explanation)


def sections(text: str) -> dict[str, str]:
    """What a script printed, by the "== NAME" lines that it put before each part."""
    found: dict[str, str] = {}
    for part in f"\n{text}".split("\n== ")[1:]:
        name, _, content = part.partition("\n")
        found[name.strip()] = content.strip("\n")
    return found


def numbers(text: str) -> dict[str, int]:
    """Lines of "NAME NUMBER", as cgroup files have them."""
    pairs = (line.split() for line in text.splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}
