"""The only place that loads apache-libcloud, beside the rows: errors, retries, and one connection for
each account."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import urlsplit

from machine.errors import DriverError, MachineError

LIMIT: Final = 60
"""Seconds for one question, with all the times that libcloud asks it again."""


def load(name: str, *words: str, **options: Any) -> Any:
    """libcloud's driver of that name, which asks again after rate limits and broken connections."""
    from libcloud.common import base
    from libcloud.compute.providers import get_driver

    base.RETRY_FAILED_HTTP_REQUESTS = True
    made = get_driver(name)(*words, **options)
    made.connection.timeout, made.connection.retry_delay, made.connection.backoff = LIMIT, 1, 2
    return made


def point(made: Any, endpoint: str) -> Any:
    """Another service with the same API. Some of libcloud's drivers take no host when they are
    made, so their connection is told."""
    if endpoint:
        where = urlsplit(endpoint)
        made.connection.host = where.hostname
        made.connection.secure = where.scheme == "https"
        made.connection.port = where.port or (443 if made.connection.secure else 80)
        made.connection.connect()
    return made


@contextmanager
def once(made: Any) -> Iterator[None]:
    """For what makes something: asked again only where the provider says that it did not do it."""
    from libcloud.utils.retry import MinimalRetry

    before = made.connection.retryCls
    made.connection.retryCls = MinimalRetry
    try:
        yield
    finally:
        made.connection.retryCls = before


@contextmanager
def doing(
    provider: str, what: str, error: type[MachineError] = DriverError, hint: str = ""
) -> Iterator[None]:
    """Turn what libcloud raises into ours: the provider's words, and what to do."""
    try:
        yield
    except MachineError:
        raise
    except Exception as exc:
        said = str(exc).strip("'\"") or type(exc).__name__
        raise error(
            f"{provider} did not do as asked: {what}",
            details=f"{type(exc).__name__}: {said}",
            hint=_hint(exc) or hint,
        ) from exc


def _hint(exc: Exception) -> str:
    from libcloud.common.exceptions import BaseHTTPError, RateLimitReachedError
    from libcloud.common.types import InvalidCredsError

    words = str(exc).lower()
    if isinstance(exc, InvalidCredsError) or getattr(exc, "code", 0) in (401, 403):
        return "Are the credentials right, and may they do this? docs/clouds.md"
    if isinstance(exc, RateLimitReachedError):
        return "Wait a little, and run the same command again"
    if "quota" in words or "limit" in words:
        return "A quota of the account is used up: remove machines, or ask the provider for more"
    if isinstance(exc, OSError) and not isinstance(exc, BaseHTTPError):
        return "Is the network up?"
    return ""
