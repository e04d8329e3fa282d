"""The only user of watchfiles: being told when files change."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

GATHER: Final = 400
"""Milliseconds at most in which changes count as one."""
LOOK_UP: Final = 1000
"""Milliseconds without a change until it is looked whether to stop."""


def changes(paths: Sequence[Path], stop: threading.Event, *, deep: bool = True) -> Iterator[None]:
    """Yields once when the watching has begun, and then when something at the paths, or below them,
    has changed; ends soon after ``stop`` is set. Without ``deep`` only what is directly in a folder
    counts. Raises OSError where that many folders cannot be watched."""
    import watchfiles

    begun = False
    seen = watchfiles.watch(
        *paths,
        watch_filter=None,
        debounce=GATHER,
        stop_event=stop,
        rust_timeout=LOOK_UP,
        yield_on_timeout=True,
        raise_interrupt=False,
        recursive=deep,
        ignore_permission_denied=True,
    )
    try:
        for found in seen:
            if found or not begun:
                begun = True
                yield
    except RuntimeError as exc:  # its own, of what the system told it
        raise OSError(str(exc)) from exc
