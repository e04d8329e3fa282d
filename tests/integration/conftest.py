"""What the tests of the command line share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def host(folder_driver: str, own_home: Path) -> str:
    """A machine of the third-party driver, as its record says; its host runs."""
    from machine import record
    from machine.model import Address, EngineOptions
    from machine.store import Store

    made = record.new("f1", folder_driver, record.block(), EngineOptions(labels=("a=b",)))
    made.ours.journal.finished = True
    made.note_address(Address("127.0.0.1"))
    store = Store()
    store.reserve(made)
    state = store.folder("f1").root / made.ours.id / "state"
    state.parent.mkdir()
    state.write_text("Running")
    return "f1"
