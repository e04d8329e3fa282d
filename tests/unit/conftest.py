"""Unit tests start no process, open no connection and do not sleep."""

from __future__ import annotations

import socket
import subprocess
import time
from typing import Any, NoReturn

import pytest


class UnitTestStartedAProgram(Exception):
    """Move the test to tests/integration."""


class UnitTestOpenedAConnection(Exception):
    """Move the test to tests/integration."""


class UnitTestSlept(Exception):
    """Move the test to tests/integration, or give the wait a limit of 0."""


@pytest.fixture(autouse=True)
def nothing_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(error: type[Exception]) -> Any:
        def call(*args: object, **kwargs: object) -> NoReturn:
            raise error

        return call

    monkeypatch.setattr(subprocess, "Popen", refuse(UnitTestStartedAProgram))
    monkeypatch.setattr(socket.socket, "connect", refuse(UnitTestOpenedAConnection))
    monkeypatch.setattr(time, "sleep", refuse(UnitTestSlept))
