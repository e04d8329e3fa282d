"""The screen of `machine top`. It looks in a thread, and changes a machine only when a key asks."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import ClassVar, Final

from rich.text import Text
from textual import events
from textual.app import App, ComposeResult, SuspendNotSupported
from textual.binding import Binding, BindingType
from textual.widgets import Footer, Input, Static

from machine import command
from machine.cli.top import table, verbs
from machine.cli.top.dialogs import Ask, Confirm, Reading
from machine.cli.top.happened import Events
from machine.cli.top.machines import Machines
from machine.cli.top.messages import Asked, Looked, Read, Said
from machine.errors import MachineError
from machine.events import Emit, Event, Note, Question, Reporter, StepEnded, StepStarted
from machine.host import Host
from machine.redaction import redact
from machine.workflows.news import changes
from machine.workflows.survey import natural
from machine.workflows.watch import Watch, Watched

BUG: Final = "this is a bug in machine"
LOW: Final = 10
"""Lines of a terminal under which events have no room."""
PARTS: Final = ("#summary", "Machines", "#details", "Events", "#filter")


class Top(App[None]):
    TITLE = "machine top"
    ENABLE_COMMAND_PALETTE = False
    CSS = """
    Screen { overflow: hidden; }
    #summary { height: 1; background: $primary; color: $text; text-wrap: nowrap; }
    Machines { height: 1fr; min-height: 3; scrollbar-size-vertical: 1; }
    #details { height: auto; max-height: 50%; border-top: solid $primary; display: none; }
    Events { height: 25%; min-height: 3; max-height: 12; border-top: solid $primary;
              scrollbar-size-vertical: 1; background: $background; }
    #filter { height: 1; display: none; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("s", "start", "Start"),
        Binding("t", "stop", "Stop"),
        Binding("k", "kill", "Kill"),
        Binding("r", "remove", "Remove"),
        Binding("l", "logs", "Logs"),
        Binding("d", "details", "Details"),
        Binding("slash", "filter", "Filter", key_display="/"),
        Binding("q", "leave", "Quit"),
        Binding("ctrl+c", "leave", show=False, priority=True),
        Binding("escape", "clear", "Clear", show=False),
    ]

    def __init__(self, watch: Watch, *, interval: float, words: str = "") -> None:
        super().__init__()
        self._watch, self._interval, self._words = watch, interval, words
        self._machines: dict[str, Watched] = {}
        self._working: dict[str, str] = {}  # what is being done, by machine
        self._looking = False
        self._looked = False

    def compose(self) -> ComposeResult:
        yield Static("Looking ...", id="summary", markup=False)
        yield Machines()
        yield Static(id="details", markup=False)
        yield Events()
        yield Input(placeholder="words; Escape: all", id="filter", compact=True)
        yield Footer(compact=True)

    def on_mount(self) -> None:
        self.query_one(Machines).focus()
        self.set_interval(self._interval, self.look)
        self.look()

    def _fatal_error(self) -> None:
        """Of Textual's, which would print a traceback: ``failure`` is raised where `top` is called."""
        self._close_messages_no_wait()

    @property
    def failure(self) -> BaseException | None:
        return self._exception

    # Looking

    def look(self) -> None:
        """In a thread, unless the look before still lasts."""
        if self._looking:
            return
        self._looking = True
        threading.Thread(target=self._look, daemon=True).start()

    def _look(self) -> None:
        machines = list(self._machines.values())
        try:
            machines = self._watch.look(natural(self._watch.store.names()))
        except MachineError as exc:  # the store cannot be read
            self.post_message(Said("", exc.line, failed=True))
        except Exception as exc:  # noqa: BLE001 - nobody else would say it
            self.post_message(Said("", f"{BUG}: {exc!r}", failed=True))
        finally:
            self.post_message(Looked(machines))

    def on_looked(self, message: Looked) -> None:
        self._looking = False
        if self._is_gone:
            return
        seen = {each.name: each for each in message.machines}
        if self._looked:
            for name, text in changes(self._machines, seen):
                self._say(name, text)
        self._machines, self._looked = seen, True
        self._show()

    @property
    def _shown(self) -> list[Watched]:
        return [each for each in self._machines.values() if table.matches(each, self._words)]

    def _show(self) -> None:
        if self._is_gone:
            return
        shown = self._shown
        summary = table.summary(
            list(self._machines.values()), len(shown), self._interval, self._words
        )
        self.query_one("#summary", Static).update(summary)
        self.query_one(Machines).show(shown, self.size.width - 1, self._working)
        self._show_details()

    def on_resize(self, event: events.Resize) -> None:
        if self._is_gone:
            return
        self.query_one(Events).display = event.size.height >= LOW
        if self._looked:
            self.call_after_refresh(self._show)

    # Keys that only look

    def action_details(self) -> None:
        panel = self.query_one("#details")
        panel.display = not panel.display
        self._show_details()
        self.look()

    def on_data_table_row_highlighted(self) -> None:
        self._show_details()

    def _show_details(self) -> None:
        """While they are shown, the machine is logged in to."""
        if self._is_gone:
            return
        panel = self.query_one("#details", Static)
        watched = self._machines.get(self.query_one(Machines).chosen) if panel.display else None
        self._watch.inside = {watched.name} if watched else set()
        if watched:
            panel.update(table.details(watched, inside=self._watch.is_inside(watched.name)))

    def action_filter(self) -> None:
        field = self.query_one("#filter", Input)
        field.display = True
        field.focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        if event.input.id == "filter":
            self._words = event.value
            self._show()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        if event.input.id == "filter":
            event.input.display = False
            self.query_one(Machines).focus()

    def action_clear(self) -> None:
        field = self.query_one("#filter", Input)
        field.value, field.display, self._words = "", False, ""
        self.query_one(Machines).focus()
        self._show()

    def action_logs(self) -> None:
        from machine.workflows.console import logs

        if name := self.query_one(Machines).chosen:
            self._work(name, "reading its log", partial(self._read, name, logs), quiet=True)

    def _read(self, name: str, logs: Callable[[Host], tuple[str, str]], emit: Emit) -> None:
        title, text = logs(self._host(name, emit))
        self.post_message(Read(f"{name}: {title}", text))

    def on_read(self, message: Read) -> None:
        self.push_screen(Reading(message.title, redact(message.text)))

    def action_ssh(self) -> None:
        """A terminal on the machine in this one's place, until it is left."""
        from machine import ssh

        if not (name := self.query_one(Machines).chosen):
            return
        try:
            host = self._host(name)
            host.require_login()
            host.require_running()
            words = ssh.ssh_command(host.address(), host.login, [])
            with self.suspend():
                code = command.attached(words)
        except MachineError as exc:
            self._say(name, exc.line, failed=True)
        except SuspendNotSupported:
            self._say(name, "no other program can have this terminal", failed=True)
        else:
            self._say(name, "logged out" if code != 255 else "ssh could not log in")  # ssh(1)

    # Keys that change a machine

    def action_start(self) -> None:
        if name := self.query_one(Machines).chosen:
            self._work(name, "starting", partial(verbs.start, self._watch.store, name))

    def action_stop(self) -> None:
        self._confirmed("Shut {} down?", "stopping", verbs.stop)

    def action_kill(self) -> None:
        question = "Power {} off at once? What it has not written yet is lost."
        self._confirmed(question, "powering off", verbs.kill)

    def _confirmed(self, question: str, doing: str, verb: Callable[..., object]) -> None:
        if not (name := self.query_one(Machines).chosen):
            return

        def answered(yes: bool | None) -> None:
            if yes:
                self._work(name, doing, partial(verb, self._watch.store, name))

        self.push_screen(Confirm(question.format(name)), answered)

    def action_remove(self) -> None:
        if not (name := self.query_one(Machines).chosen):
            return

        def answered(typed: str | None) -> None:
            if typed == name:
                self._work(name, "removing", partial(verbs.remove, self._watch.store, name))
            elif typed:
                self._say(name, "not removed: another name was typed")

        question = f"Remove {name} and everything made for it? Type its name."
        self.push_screen(Ask(question), answered)

    def action_leave(self) -> None:
        if not self._working:
            self.exit()
            return
        doing = ", ".join(f"{name} ({what})" for name, what in self._working.items())
        question = f"Leave what is being done as it is? {doing}"
        self.push_screen(Confirm(question), lambda yes: self.exit() if yes else None)

    def _work(
        self, name: str, doing: str, work: Callable[[Emit], object], *, quiet: bool = False
    ) -> None:
        """In a thread; one thing at a time with a machine."""
        if name in self._working:
            self._say(name, f"busy: {self._working[name]}")
            return
        self._working[name] = doing
        self._show()

        def job() -> None:
            try:
                work(self._emit)
            except MachineError as exc:
                parts = (exc.line, *exc.hint.splitlines())
                self.post_message(Said(name, "\n".join(parts), failed=True, over=True))
            except Exception as exc:  # noqa: BLE001 - the screen stays, whatever happens
                self.post_message(Said(name, f"{BUG}: {exc!r}", failed=True, over=True))
            else:
                self.post_message(Said(name, "" if quiet else f"{doing}: done", over=True))

        threading.Thread(target=job, daemon=True).start()

    @property
    def _is_gone(self) -> bool:
        """Threads and widgets may still have something to say while the screen is taken apart, which
        is done a widget at a time."""
        return len(self.query(", ".join(PARTS))) < len(PARTS)

    def on_said(self, message: Said) -> None:
        if self._is_gone:
            return
        if message.text:
            self._say(message.name, message.text, failed=message.failed)
        if message.over:
            self._working.pop(message.name, None)
            self._watch.renew(message.name)
            self._show()
            self.look()

    def on_asked(self, message: Asked) -> None:
        def answered(text: str | None) -> None:
            message.question.answer = text
            message.answered.set()

        question = message.question
        self.push_screen(Ask(f"{question.host}: {question.text}", hidden=question.hidden), answered)

    def _emit(self, event: Event) -> None:
        """The sink of what works, in its thread."""
        match event:
            case StepStarted(host, _, title):
                self.post_message(Said(host, f"{title} ..."))
            case StepEnded(host, _, seconds, error) if error:
                self.post_message(Said(host, f"failed after {seconds:.1f} s", failed=True))
            case Note(host, text, warning):
                self.post_message(Said(host, text, failed=warning))
            case Question():
                answered = threading.Event()
                if self.post_message(Asked(event, answered)):
                    answered.wait()

    def _host(self, name: str, emit: Emit | None = None) -> Host:
        report = Reporter(emit, name) if emit else None
        return Host.load(self._watch.store, name, report)

    def _say(self, name: str, text: str, *, failed: bool = False) -> None:
        at = f"{datetime.now():%H:%M:%S} "
        line = Text.assemble((at, "dim"), (name, "bold"), " " if name else "")
        line.append(redact(text), "red" if failed else "")
        self.query_one(Events).say(line)
