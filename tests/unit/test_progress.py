"""Plain lines, where standard error is no terminal."""

from __future__ import annotations

import pytest

from machine.cli import progress
from machine.events import Progress, StepEnded, StepStarted


def test_a_long_transfer_says_how_far_it_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = progress.Lines(prefix=False)
    lines(StepStarted("w1", "install", "Installing the engine"))
    lines(Progress("w1", "install", 1 << 20, 88 << 20))  # nothing yet: it has only begun
    monkeypatch.setattr(progress, "BETWEEN", 0.0)
    lines(Progress("w1", "install", 40 << 20, 88 << 20))
    lines(Progress("w1", "install", 41 << 20, None))
    lines(Progress("w1", "install", 3, 7, unit=""))
    lines(StepEnded("w1", "install", 4.25))
    assert capsys.readouterr().err.splitlines() == [
        "Installing the engine ...",
        "  40 of 88 MiB",
        "  41 MiB",
        "  3 of 7",
        "Installing the engine: done in 4.2 s",
    ]
