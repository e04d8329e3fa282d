from __future__ import annotations

from pathlib import Path, PurePosixPath

from machine import tree
from machine.tree import FILE, FOLDER, LINK, Entry, Rules

ALL = Rules(lambda path: False)
OLD, NEW, OTHER = (Entry(FILE, 1, time, 0o644) for time in (1, 2, 3))
ROOT = Entry(FOLDER)


def test_what_is_left_out_of_a_folder(tmp_path: Path) -> None:
    root = tmp_path / "root"
    for path in ("kept", "out/in", "out/no"):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    found = tree.scan(root, Rules(lambda path: path.startswith("out")))
    assert set(found.tree) == {"", "kept"}
    back = Rules(lambda path: path.startswith("out") and path != "out/in", final=False)
    assert set(tree.scan(root, back).tree) == {"", "kept", "out", "out/in"}


def test_a_root_may_be_a_file_a_link_or_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to("file")
    assert tree.scan(tmp_path / "file", ALL).tree[""].kind == FILE
    assert tree.scan(tmp_path / "link", ALL).tree == tree.scan(tmp_path / "file", ALL).tree
    assert tree.scan(tmp_path / "none", ALL).tree == {}


def test_what_differs_is_sent_and_what_changed_there_stays() -> None:
    here = {"": ROOT, "new": NEW, "same": OLD, "mine": NEW, "theirs": OLD, "both": NEW, "gone": OLD}
    there = {"": ROOT, "same": OLD, "mine": OLD, "theirs": NEW, "both": OTHER, "made": OLD}
    sent = {"": ROOT, "same": OLD, "mine": OLD, "theirs": OLD, "both": OLD, "gone": OLD}
    plan = tree.to_send(here, there, sent)
    assert (plan.send, plan.clash, plan.remove) == (["gone", "mine", "new"], ["both"], [])
    plan = tree.to_send(here, there, sent, overwrite=True)
    assert plan.send == ["both", "gone", "mine", "new", "theirs"]


def test_what_nobody_sent_is_never_written_over() -> None:
    plan = tree.to_send({"": NEW}, {"": OLD}, {})
    assert (plan.send, plan.clash) == ([], [""])


def test_only_what_was_sent_and_did_not_change_is_removed() -> None:
    there = {"": ROOT, "d": ROOT, "d/sent": OLD, "changed": NEW, "made": OLD}
    sent = {"": ROOT, "d": ROOT, "d/sent": OLD, "changed": OLD}
    assert tree.to_send({"": ROOT}, there, sent).remove == []
    assert tree.to_send({"": ROOT}, there, sent, delete=True).remove == ["d/sent", "d"]


def test_a_folder_and_a_file_of_one_name() -> None:
    here = {"": ROOT, "x": NEW, "y": ROOT, "y/f": NEW}
    plan = tree.to_send(here, {"": ROOT, "x": ROOT, "y": OLD}, {"y": OLD})
    assert (plan.send, plan.remove) == (["x", "y", "y/f"], ["x", "y"])
    plan = tree.to_send(here, {"": ROOT, "x": ROOT, "x/full": OLD, "y": OLD}, {})
    assert (plan.send, plan.clash) == ([], ["x", "y"])


def test_what_is_brought_back() -> None:
    here = {"": ROOT, "theirs": OLD, "both": NEW, "mine": NEW}
    there = {
        **{"": ROOT, "theirs": NEW, "both": OTHER, "mine": OLD, "made": OLD, "log": NEW},
        **{"gone": OLD, "s": Entry("s")},
    }
    sent = {"": ROOT, "theirs": OLD, "both": OLD, "mine": OLD, "gone": OLD}
    plan = tree.to_fetch(here, there, sent, Rules(lambda path: path == "log"))
    assert (plan.send, plan.clash) == (["made", "theirs"], ["both"])


def test_what_is_agreed_in_outlives_a_disagreement() -> None:
    sent = tree.agreed({"a": NEW, "b": NEW}, {"a": NEW, "b": OTHER, "c": OLD}, {"b": OLD, "d": OLD})
    assert sent == {"a": NEW, "b": OLD}
    assert tree.from_json(tree.as_json(sent)) == sent


def test_links_that_lead_out() -> None:
    links = {"in": "sub/x", "up": "sub/../y", "out": "../z", "sub/far": "/etc", "sub/near": "../x"}
    entries = {path: Entry(LINK, link=link) for path, link in links.items()}
    assert dict(tree.leaving(PurePosixPath("/p"), entries)) == {"out": "../z", "sub/far": "/etc"}
