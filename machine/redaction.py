"""Secrets that this process has had to do with, kept out of everything that it says."""

from __future__ import annotations

from typing import Final

HIDDEN: Final = "***"
SHORTEST: Final = 4
"""Characters; anything shorter would eat words."""

_seen: set[str] = set()


def remember(secret: str) -> str:
    """From now on ``redact`` knows it; answers it."""
    if len(secret) >= SHORTEST:
        _seen.add(secret)
    return secret


def redact(text: str) -> str:
    for each in sorted(_seen, key=len, reverse=True):
        text = text.replace(each, HIDDEN)
    return text
