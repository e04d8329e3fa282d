"""Engine bundles: one tar file with a lock, made once here and unpacked the same on every host."""

from __future__ import annotations

from machine.runtime.bundle.cache import BundleCache, age, obtain
from machine.runtime.bundle.delivery import LABEL, deliver, discard
from machine.runtime.bundle.lock import ANY, Bundle

__all__ = ["ANY", "LABEL", "Bundle", "BundleCache", "age", "deliver", "discard", "obtain"]
