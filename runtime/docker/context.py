"""A machine as a context of the docker client: `docker --context NAME`, without any variables.

The layout is the client's own store (cli/context/store of docker/cli; seen in 28.2.2): a folder
named by the sha256 of the context's name under contexts/meta, and one under contexts/tls.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from machine import files
from machine.errors import BadOption, EngineError
from machine.model import TlsFiles

_NAME: Final = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.+-]+")
"""The client's own rule: two characters at least."""
_MARK: Final = "MachineId"
"""A key of ours in a context's metadata; the client keeps keys that it does not know."""


def check(name: str, mark: str) -> None:
    """Raises BadOption for a name that the client cannot use, EngineError for one that is taken."""
    if not _NAME.fullmatch(name) or name == "default":
        raise BadOption(
            f'The docker client takes no context called "{name}"',
            hint="Two characters at least, and not default; or leave --context out",
        )
    found = _metadata(name)
    if found is not None and found.get(_MARK) != mark:
        raise EngineError(
            f'The docker client has a context "{name}" already, and it is not this machine\'s',
            hint=f"docker context rm {name}   or choose another name for the machine",
        )


def write(name: str, url: str, tls: TlsFiles, mark: str) -> None:
    """Make or renew the context. Raises what ``check`` raises, and EngineError."""
    check(name, mark)
    try:
        _write(name, url, tls, mark)
    except OSError as exc:
        raise EngineError(f'The context "{name}" cannot be written', details=str(exc)) from exc


def remove(name: str, mark: str) -> None:
    """Take the context away if it is this machine's, and from its place as the current one. Twice
    is fine."""
    found = _metadata(name)
    if found is None or found.get(_MARK) != mark:
        return
    shutil.rmtree(_tls(name), ignore_errors=True)
    shutil.rmtree(_meta(name), ignore_errors=True)
    path = _root() / "config.json"
    with suppress(OSError, ValueError):
        settings = json.loads(path.read_text())
        if settings.get("currentContext") == name:
            del settings["currentContext"]
            mode = path.stat().st_mode & 0o777
            files.replace(path, json.dumps(settings, indent="\t").encode(), mode=mode)


def _root() -> Path:
    given = os.environ.get("DOCKER_CONFIG")
    return Path(given) if given else Path.home() / ".docker"


def _meta(name: str) -> Path:
    return _root() / "contexts" / "meta" / _digest(name)


def _tls(name: str) -> Path:
    return _root() / "contexts" / "tls" / _digest(name)


def _metadata(name: str) -> dict[str, Any] | None:
    """Of the context that has the name; None where none has. A damaged one is somebody's too."""
    try:
        found = json.loads((_meta(name) / "meta.json").read_text()).get("Metadata")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, AttributeError):
        return {}
    return found if isinstance(found, dict) else {}


def _write(name: str, url: str, tls: TlsFiles, mark: str) -> None:
    endpoint = {"Host": url, "SkipTLSVerify": False}
    meta = {
        "Name": name,
        "Metadata": {"Description": "made by machine", _MARK: mark},
        "Endpoints": {"docker": endpoint},
    }
    folder = _tls(name) / "docker"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for target, source in (("ca.pem", tls.ca), ("cert.pem", tls.cert), ("key.pem", tls.key)):
        files.replace(folder / target, source.read_bytes())
    _meta(name).mkdir(parents=True, exist_ok=True)
    files.replace(_meta(name) / "meta.json", json.dumps(meta).encode(), mode=0o644)


def _digest(name: str) -> str:
    import hashlib  # when it is needed: `ls` and `url` load this module too

    return hashlib.sha256(name.encode()).hexdigest()
