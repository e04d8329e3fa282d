from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from machine import sealed
from machine.errors import MachineError


@settings(max_examples=5)
@given(st.binary(max_size=2000), st.text(min_size=1))
def test_the_passphrase_opens_it(content: bytes, passphrase: str) -> None:
    closed = sealed.seal(content, passphrase)
    assert sealed.is_sealed(closed)
    assert len(content) < 8 or content not in closed
    assert sealed.unseal(closed, passphrase) == content


def test_another_passphrase_or_a_changed_byte_is_told() -> None:
    closed = sealed.seal(b"keys of a Swarm", "right")
    with pytest.raises(MachineError, match="does not open it"):
        sealed.unseal(closed, "wrong")
    damaged = closed[:-5] + bytes([closed[-5] ^ 1]) + closed[-4:]
    with pytest.raises(MachineError, match="does not open it"):
        sealed.unseal(damaged, "right")
    assert not sealed.is_sealed(b"keys of a Swarm")
