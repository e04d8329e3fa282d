"""What a machine's id alone decides: the same at every call, and after a kill."""

from __future__ import annotations

import hashlib


def mac(prefix: str, host_id: str, purpose: str) -> str:
    """A MAC address with the first three bytes of its hypervisor's ("52:54:00")."""
    found = hashlib.sha256(f"{host_id} {purpose}".encode()).hexdigest()
    return f"{prefix}:{found[:2]}:{found[2:4]}:{found[4:6]}"


def ports(first: int, pairs: int, host_id: str, attempt: int) -> tuple[int, int]:
    """Two neighbouring ports, of so many pairs from ``first`` on; another pair for each attempt.
    Whether they are free nobody asks here."""
    digest = hashlib.sha256(f"{host_id} ports {attempt}".encode()).digest()
    low = first + 2 * (int.from_bytes(digest[:4]) % pairs)
    return low, low + 1
