"""What threads have to say to the screen of `top`."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from textual.message import Message

from machine.events import Question
from machine.workflows.watch import Watched


@dataclass
class Looked(Message):
    """From the thread that looked."""

    machines: list[Watched]


@dataclass
class Said(Message):
    """From a thread that works: a line for the events, and whether its work is over."""

    name: str
    text: str
    failed: bool = False
    over: bool = False


@dataclass
class Asked(Message):
    """Likewise: its user has to answer, and it waits."""

    question: Question
    answered: threading.Event


@dataclass
class Read(Message):
    """Likewise: text to be shown."""

    title: str
    text: str
