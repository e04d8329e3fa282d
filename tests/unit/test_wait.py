from __future__ import annotations

import pytest

from machine import wait
from machine.errors import TimedOut


def test_what_is_true_at_once_is_not_waited_for() -> None:
    assert wait.until("it", lambda: 7, timeout=0) == 7


def test_the_limit_is_told_with_the_last_answer() -> None:
    with pytest.raises(TimedOut, match="the moon") as caught:
        wait.until("the moon", lambda: None, timeout=0, last_answer=lambda: "clouds", hint="go out")
    assert caught.value.details == "clouds"
    assert caught.value.hint == "go out"


def test_a_deadline_that_is_over_has_nothing_left() -> None:
    deadline = wait.Deadline(0)
    assert deadline.over
    assert deadline.left == 0
