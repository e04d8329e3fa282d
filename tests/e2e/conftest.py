from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.testbed import SessionBed, VirtualboxBed


@pytest.fixture(scope="session")
def session_bed() -> Iterator[SessionBed]:
    """In a folder of its own: pytest's are closed to other users."""
    with SessionBed(Path(tempfile.mkdtemp(prefix="machine-session-"))) as made:
        yield made


@pytest.fixture(scope="session")
def virtualbox_bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VirtualboxBed]:
    with VirtualboxBed(tmp_path_factory.mktemp("bed") / "virtualbox") as made:
        yield made
