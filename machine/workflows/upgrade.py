"""Another version of a machine's engine, or other options, and back if it does not answer then."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from machine import fallback
from machine.errors import EngineError, GuestUnreachable, HostError, MachineError, lines
from machine.events import Emit, Reporter, ignore
from machine.fallback import Before
from machine.host import Host
from machine.model import BundleKind, Can, EngineOptions, Setup, State
from machine.runtime.bundle import Bundle, BundleCache, age, deliver, discard
from machine.store import Store
from machine.workflows import bootstrap, power
from machine.workflows.bootstrap import Session


@dataclass(frozen=True, slots=True)
class Wish:
    """What an engine is to become."""

    bundle: str = ""  # its name; "": the newest that fits, if that is newer
    opts: tuple[str, ...] = ()  # as EngineOptions; each replaces what is recorded under its key
    labels: tuple[str, ...] = ()

    def options(self, recorded: EngineOptions) -> EngineOptions:
        return replace(
            recorded,
            opts=_replaced(recorded.opts, self.opts),
            labels=_replaced(recorded.labels, self.labels),
        )


@dataclass(frozen=True, slots=True)
class Outcome:
    before: str  # the engine's versions
    after: str
    changed: bool

    @property
    def told(self) -> str:
        if not self.changed:
            return f"already at {self.before}"
        if self.after == self.before:
            return f"changed, and still {self.after}"
        return f"{self.before} -> {self.after}"


def upgrade(
    store: Store, name: str, emit: Emit = ignore, *, wish: Wish | None = None, yes: bool = False
) -> Outcome:
    """Start it if it is stopped, and ``upgrade_host``."""
    report = Reporter(emit, name)
    with store.lock(name, wait=5):
        host = Host.load(store, name, report)
        host.require_ours()
        stopped = power.known_state(host) in (State.STOPPED, State.SAVED)
        if stopped and Can.POWER in host.driver.can:
            power.bring_up(host)
        host.require_running()
        return upgrade_host(host, wish or Wish(), yes=yes)


def upgrade_host(
    host: Host, wish: Wish, *, yes: bool = False, prepare: Callable[[], None] | None = None
) -> Outcome:
    """Install the bundle, take the options over, restart the engine and ask it; go back to what
    was there if it does not answer. The caller holds the machine's lock. ``prepare`` is called when
    there is something to do, before it is done. What was cut off is begun again from what was there
    before. Asks the user, unless ``yes``, when a restart ends something or
    there would be no way back. Raises EngineError when it went back, or could not."""
    if host.setup is Setup.ADOPT:
        raise EngineError(
            f'The engine of "{host.name}" was adopted: what installed it has to upgrade it',
            hint=f"machine provision {host.name} sees that it is still reached as before",
        )
    with host.report.step("system", "Looking at the engine"):
        session = Session.open(host)
    try:
        return _Upgrade(session, wish).run(yes=yes, prepare=prepare)
    finally:
        session.close()


class _Upgrade:
    def __init__(self, session: Session, wish: Wish) -> None:
        self.session = session
        self.host = session.host
        self.wish = wish
        self.cut_off = fallback.kept(session.guest)
        self.before = self.cut_off or self._look()
        self.bundle: Bundle | None = None  # None: the programs stay
        state = session.provisioner.service_state(session.engine.unit)
        runs = state is not None and state.active
        self.restarted = not runs or self.cut_off is not None  # for all that is known

    def _look(self) -> Before:
        found = fallback.look(self.session.engine, self.session.provisioner)
        if found is None:
            raise EngineError(
                f'There is no engine on "{self.host.name}"',
                hint=f"machine provision {self.host.name} installs one",
            )
        return found

    def run(self, *, yes: bool, prepare: Callable[[], None] | None) -> Outcome:
        host, guest = self.host, self.session.guest
        recorded = host.record.engine_options
        options = self.wish.options(recorded)
        self.bundle = self._choose()
        if not (self.bundle or self.cut_off or options != recorded):
            return Outcome(self.before.version, self.before.version, changed=False)
        older = self._older()
        if prepare:
            prepare()
        if not yes:
            self._ask(older)
        self._keep()
        host.record.engine_options = options
        try:
            version = self._bring_up()
        except MachineError as exc:
            host.record.engine_options = recorded
            raise self._gone_back(exc, older) from exc
        if self.bundle:
            host.block.bundle, host.block.bundle_kind = self.bundle.sha256, self.bundle.kind
        host.save()
        fallback.forget(guest)
        self.session.engine.tidy()
        return Outcome(self.before.version, version, changed=True)

    def _choose(self) -> Bundle | None:
        """What is to be installed. Raises BundleError, EngineError."""
        host, release = self.host, self.session.provisioner.release
        arch = self.session.guest.run("uname", "-m").stdout.strip()
        cache = BundleCache()
        if self.wish.bundle:
            named = cache.get(self.wish.bundle)
            if named.engine != host.block.engine or not named.serves(
                release.id, release.version_id, arch
            ):
                raise EngineError(
                    f"The bundle {named.name} is for {named.os_id} {named.os_version}, {named.arch}; "
                    f'"{host.name}" is {release.id} {release.version_id}, {arch}',
                    hint="machine bundle ls shows what is there",
                )
            return named if self._differs(named) else None
        kind = self.before.kind
        if kind == BundleKind.PACKAGES and not self._is_of_packages():
            self._require_options()
            return None
        system = (release.id, release.version_id, arch)
        found = cache.find(host.block.engine, *system, kind)
        if found is None and not self._has_options:
            found = cache.ensure(host.engine, *system, kind, host.report)
        return found if found and self._is_newer(found) else None

    @property
    def _has_options(self) -> bool:
        return bool(self.wish.opts or self.wish.labels)

    def _is_of_packages(self) -> bool:
        """Whether it was installed from packages as bundles have them."""
        release = self.session.provisioner.release
        recipe = self.host.engine.recipe(release.id, release.version_id)
        return recipe is not None and recipe.packages[0] in self.before.packages

    def _require_options(self) -> None:
        """Of an engine that came from elsewhere nothing else can be changed."""
        if not self._has_options:
            raise EngineError(
                f'The engine of "{self.host.name}" is not from a bundle: what installed it has to '
                "upgrade it",
                hint="--bundle NAME puts a static one before it; machine bundle ls",
            )

    def _differs(self, bundle: Bundle) -> bool:
        if bundle.kind != self.before.kind:
            return True
        if bundle.kind == BundleKind.STATIC:
            return age(bundle.version) != age(self.before.version)
        return bundle.packages.items() - self.before.packages.items() != set()

    def _is_newer(self, bundle: Bundle) -> bool:
        if bundle.kind == BundleKind.STATIC:
            return age(bundle.version) > age(self.before.version)
        return bool(self._changing(bundle))

    def _changing(self, bundle: Bundle) -> dict[str, str]:
        exact = bool(self.wish.bundle)
        return self.before.changing(self.session.provisioner, bundle, exact=exact)

    def _older(self) -> Bundle | None:
        """What packages are brought back from; None where none are changed, or there is nothing."""
        changing = self._changing(self.bundle) if self.bundle else {}
        return BundleCache().with_packages(changing) if changing else None

    def _ask(self, older: Bundle | None) -> None:
        """Before anything is changed. Raises HostError when the user does not want it, or is not
        there."""
        stake = self.session.engine.at_stake()
        concerns = [f"the restart ends what runs: {stake}"] if stake else []
        if self.bundle and older is None and self._changing(self.bundle):
            concerns.append(
                f"no bundle here has the packages that are installed ({self.before.version}): if "
                "the new engine does not answer, they cannot be put back"
            )
        if not concerns:
            return
        text = "; ".join(concerns)
        agreed = self.host.report.confirm(f"{text[0].upper()}{text[1:]}. Go on?")
        if not agreed:
            why = "there is nobody to ask" if agreed is None else "nothing was changed"
            raise HostError(
                f'"{self.host.name}" is left as it is: {why}', details=text, hint="Add --yes"
            )

    def _keep(self) -> None:
        """What an upgrade that was cut off left of configuration goes; its packages may stay, and
        become whole when these are installed."""
        session = self.session
        session.provisioner.reload_services()  # what its user has changed of them counts
        if self.cut_off is None:
            fallback.keep(session.guest, session.engine, self.before)
            return
        self.host.report.note(
            f"An upgrade was cut off here: it begins again, from {self.before.version}"
        )
        fallback.put_files_back(session.guest, session.engine, session.provisioner)
        if self.bundle is None and session.provisioner.is_cut_off():
            session.provisioner.restore_packages("/", (), ())

    def _bring_up(self) -> str:
        """Answers the version that answers."""
        session, report = self.session, self.host.report
        if self.bundle:
            with report.step("install", f"Installing {self.bundle.name}"):
                session.install_engine(self.bundle, exact=bool(self.wish.bundle))
        with report.step("configure", "Configuring the engine"):
            session.configure_engine(fresh_certificate=not bootstrap.certificate_fits(self.host))
        self.restarted = True
        with report.step("start", "Restarting the engine"):
            session.engine.restart()
        with report.step("verify", "Asking the engine over TLS"):
            running = bootstrap.verify(self.host).version
        if running != (installed := session.engine.installed_version()):
            raise EngineError(f"The engine that answers is {running}, and not {installed}")
        return running

    def _gone_back(self, exc: MachineError, older: Bundle | None) -> MachineError:
        """Go back, and answer what is to be raised then."""
        name, wanted = self.host.name, self.bundle.version if self.bundle else "its new options"
        brief = f'The engine of "{name}" could not be brought to {wanted}'
        again = f"machine upgrade {name} begins again from what was there before"
        if isinstance(exc, GuestUnreachable):
            return EngineError(f"{brief}: the host was lost", details=_whole(exc), hint=again)
        try:
            with self.host.report.step("back", f"Going back to {self.before.version}"):
                self._go_back(older)
        except MachineError as second:
            return EngineError(
                f"{brief}, and going back failed",
                details=f"{_whole(exc)}\nGoing back: {_whole(second)}",
                hint=lines(second.hint, again),
            )
        return EngineError(
            f"{brief}; it is {self.before.version} again, and answers",
            details=_whole(exc),
            hint=exc.hint,
        )

    def _go_back(self, older: Bundle | None) -> None:
        session, host = self.session, self.host
        if self.bundle and older:
            folder = deliver(session.guest, older, host.report)
            fallback.put_packages_back(session.provisioner, self.before, self.bundle, older, folder)
            discard(session.guest)
        fallback.put_files_back(session.guest, session.engine, session.provisioner)
        fallback.forget(session.guest)  # all of it is there again
        session.engine.tidy()
        if self.restarted:  # or else it runs on as it did, with its containers
            session.provisioner.restart_service(session.engine.unit, timeout=300)
        bootstrap.verify(host)


def _whole(exc: MachineError) -> str:
    return lines(exc.brief, exc.details)


def _replaced(recorded: Iterable[str], given: Iterable[str]) -> tuple[str, ...]:
    """K=V, each of the ``given`` in place of what is recorded under its key."""
    new = tuple(each.lstrip("-") for each in given)
    keys = {_key(each) for each in new}
    return (*(each for each in recorded if _key(each) not in keys), *new)


def _key(option: str) -> str:
    return option.lstrip("-").partition("=")[0]
