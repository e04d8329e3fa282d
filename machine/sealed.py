"""Files that only whoever has a passphrase can read."""

from __future__ import annotations

import base64
import os
from typing import Final

from machine.errors import MachineError

MAGIC: Final = b"machine-sealed-1\n"
SALT: Final = 16
COST: Final = 1 << 15
"""scrypt's N, with r = 8 and p = 1: 32 MiB and some 0.1 s (RFC 7914; the cost that its authors name
for logins, 2**14, doubled)."""


def seal(content: bytes, passphrase: str) -> bytes:
    """Encrypted and authenticated (Fernet), by a key that scrypt makes of the passphrase."""
    from cryptography.fernet import Fernet

    salt = os.urandom(SALT)
    return MAGIC + salt + Fernet(_key(passphrase, salt)).encrypt(content)


def is_sealed(content: bytes) -> bool:
    return content.startswith(MAGIC)


def unseal(content: bytes, passphrase: str) -> bytes:
    """Raises MachineError where the passphrase is another one, or the content is damaged."""
    from cryptography.fernet import Fernet, InvalidToken

    body = content.removeprefix(MAGIC)
    try:
        return Fernet(_key(passphrase, body[:SALT])).decrypt(body[SALT:])
    except InvalidToken:
        raise MachineError(
            "The passphrase does not open it, or the file is damaged",
            hint="Give the one that it was written with",
        ) from None


def _key(passphrase: str, salt: bytes) -> bytes:
    from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

    kdf = Scrypt(salt=salt, length=32, n=COST, r=8, p=1)
    return base64.urlsafe_b64encode(kdf.derive(passphrase.encode()))
