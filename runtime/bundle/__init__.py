"""Engine bundles: one tar file with a lock, made once here and unpacked the same on every host."""

from __future__ import annotations

from machine.runtime.bundle.cache import ANY, Bundle, BundleCache, obtain
from machine.runtime.bundle.delivery import deliver, discard

__all__ = ["ANY", "Bundle", "BundleCache", "deliver", "discard", "obtain"]
