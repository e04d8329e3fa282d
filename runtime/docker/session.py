"""How Docker's library hears why a body was not taken."""

from __future__ import annotations

import ssl
from typing import Any

from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPSConnection
from urllib3.connectionpool import HTTPSConnectionPool


class Connection(HTTPSConnection):
    def send(self, data: Any) -> None:
        """An engine that refuses a long body answers and hangs up. urllib3 reads the answer after a
        BrokenPipeError, and over TLS it is another one that comes (2.x)."""
        try:
            super().send(data)
        except ssl.SSLError as exc:
            raise BrokenPipeError(str(exc)) from exc


class Pool(HTTPSConnectionPool):
    ConnectionCls = Connection


class Adapter(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"https": Pool}
