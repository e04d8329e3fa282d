from __future__ import annotations

import pytest

from machine.tomlfile import line_of

TEXT = '''\
# a comment with image = "x"
image = "debian-13"
"cpus" = 2
libvirt.memory = 4

text = """
cpus = 5
"""
list = [
  1,
]
[virtualbox]
# another
memory = 1
inner = { deep = { low = 1 } }

[virtualbox.more]
cpus = 3
[[repeated]]
a = 1
'''


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        (("image",), 2),
        (("cpus",), 3),
        (("libvirt",), 4),
        (("libvirt", "memory"), 4),
        (("text",), 6),
        (("list",), 9),
        (("virtualbox",), 12),
        (("virtualbox", "memory"), 14),
        (("virtualbox", "inner", "deep", "low"), 15),
        (("virtualbox", "more"), 17),
        (("virtualbox", "more", "cpus"), 18),
        (("repeated",), 19),
        (("nowhere",), 1),
    ],
)
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_the_line_of_a_key(keys: tuple[str, ...], line: int, ending: str) -> None:
    assert line_of(TEXT.replace("\n", ending), keys) == line


def test_only_line_feeds_end_lines() -> None:
    assert line_of('a = "\u2028\u0085"\nb = 1', ("b",)) == 2
