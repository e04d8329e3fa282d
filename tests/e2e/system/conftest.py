from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.testbed import SystemBed, own_cache


@pytest.fixture(scope="session")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SystemBed]:
    """One libvirt for all tests of system mode."""
    with SystemBed(tmp_path_factory.mktemp("bed") / "system") as made:
        yield made


@pytest.fixture(scope="session")
def warm_cache(bed: SystemBed) -> Path:
    """Where warm layers come to be: a create in the bed's other cache finds none and starts cold."""
    return own_cache(bed.folder / "warm-cache")
