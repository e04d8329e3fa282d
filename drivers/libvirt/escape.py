"""The standard library's escaping of XML, loaded when XML is written: it draws in urllib, http and
ssl, which a listing does without."""

from __future__ import annotations


def escape(text: str) -> str:
    """Text between tags."""
    from xml.sax import saxutils

    return saxutils.escape(text)


def quoteattr(text: str) -> str:
    """An attribute's value, with its quotes."""
    from xml.sax import saxutils

    return saxutils.quoteattr(text)
