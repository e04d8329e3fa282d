"""docker-machine's older record formats, brought to the current one by small pure steps.

The formats are those of libmachine/host/host_v0.go to host_v2.go of docker/machine.
"""

from __future__ import annotations

from typing import Any, Final

CURRENT: Final = 3
"""libmachine/version/version.go of docker-machine 0.16.2."""


def migrate(raw: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """The record in the current format, and whether it had to change. Raises ValueError."""
    version = raw.get("ConfigVersion", 0)
    if not isinstance(version, int) or isinstance(version, bool) or version < 0:
        raise ValueError(f"ConfigVersion is {version!r}")
    if version > CURRENT:
        raise ValueError(
            f"ConfigVersion {version} is from a newer program; this one knows up to {CURRENT}"
        )
    for step in _STEPS[version:]:
        raw = step(raw)
    return {**raw, "ConfigVersion": CURRENT}, version < CURRENT


def _nest_options(raw: dict[str, Any]) -> dict[str, Any]:
    """0 to 1: flat certificate and Swarm fields move under HostOptions."""
    host = dict(raw.get("HostOptions") or {})
    host.setdefault("EngineOptions", {})
    host.setdefault(
        "SwarmOptions",
        {
            "Discovery": raw.get("SwarmDiscovery", ""),
            "Host": raw.get("SwarmHost", ""),
            "Master": raw.get("SwarmMaster", False),
        },
    )
    flat = ("StorePath", "CaCertPath", "PrivateKeyPath", "ServerCertPath", "ServerKeyPath")
    auth = {key: raw.get(key, "") for key in (*flat, "ClientKeyPath", "ClientCertPath")}
    host["AuthOptions"] = {**auth, **(host.get("AuthOptions") or {})}
    return {**raw, "HostOptions": host}


def _name_ca_key(raw: dict[str, Any]) -> dict[str, Any]:
    """1 to 2: PrivateKeyPath is called CaPrivateKeyPath, and CertDir appears."""
    host = dict(raw.get("HostOptions") or {})
    auth = dict(host.get("AuthOptions") or {})
    auth.setdefault("CaPrivateKeyPath", auth.pop("PrivateKeyPath", ""))
    auth.setdefault("CertDir", str(auth.get("CaCertPath", "")).rpartition("/")[0])
    return {**raw, "HostOptions": {**host, "AuthOptions": auth}}


def _own_store_path(raw: dict[str, Any]) -> dict[str, Any]:
    """2 to 3: the driver keeps the store's path itself."""
    driver = raw.get("Driver")
    if not isinstance(driver, dict):
        return raw
    return {**raw, "Driver": {"StorePath": raw.get("StorePath", ""), **driver}}


_STEPS: Final = (_nest_options, _name_ca_key, _own_store_path)
