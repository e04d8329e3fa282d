"""What a packet filter's rules do with a new TCP connection from elsewhere: parsers, and no commands.

A rule whose match depends on what is not known here (the sender's address, a rate, an extension)
decides nothing: a port counts as open where everybody gets through.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

ACCEPT, DROP, RETURN = "accept", "drop", "return"
ENDING: Final = {"ACCEPT": ACCEPT, "DROP": DROP, "REJECT": DROP, "RETURN": RETURN}
LAST_PORT: Final = 65535


@dataclass(frozen=True, slots=True)
class Rule:
    match: bool | None  # None: it depends
    verdict: str = ""  # "" goes on with the next rule
    chain: str = ""  # to go through first
    comes_back: bool = True


@dataclass(slots=True)
class Chain:
    """``policy`` is what is done with what no rule decided on; "" for chains that others call."""

    policy: str = ""
    rules: list[Rule] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Connection:
    """A new one, over IPv4. ``interface`` is where it arrives, "" where that is not known."""

    port: int
    interface: str = ""


@dataclass(frozen=True, slots=True)
class Base:
    """A chain of nft's that every packet for the host goes through."""

    family: str
    table: str
    chain: str
    verdict: str

    @property
    def name(self) -> str:
        return f"{self.family} {self.table} {self.chain}"


def verdict(chains: Mapping[str, Chain], name: str) -> str:
    """ACCEPT, DROP, or "" where a called chain comes to its end."""
    chain = chains.get(name, Chain())
    for rule in chain.rules:
        if not rule.match:
            continue
        if rule.chain:
            found = verdict(chains, rule.chain)  # no filter lets its chains go round in a circle
            if found or not rule.comes_back:
                return found or chain.policy
        elif rule.verdict == RETURN:
            return chain.policy
        elif rule.verdict:
            return rule.verdict
    return chain.policy


def iptables(shown: str, connection: Connection) -> str:
    """What `iptables -S` says of it: the verdict of INPUT."""
    chains: dict[str, Chain] = {}
    for line in shown.splitlines():
        words = shlex.split(line)
        if words[:1] == ["-P"]:
            chains[words[1]] = Chain(ENDING.get(words[2], DROP))
        elif words[:1] == ["-N"]:
            chains[words[1]] = Chain()
        elif words[:1] == ["-A"]:
            rule = _iptables_rule(words[2:], connection)
            if rule.chain and rule.chain not in chains:
                continue  # LOG, MARK and the like
            chains.setdefault(words[1], Chain()).rules.append(rule)
    return verdict(chains, "INPUT")


def _iptables_rule(words: Sequence[str], connection: Connection) -> Rule:
    matches: list[bool | None] = []
    target, comes_back = "", True
    rest = iter(words)
    inverted = False
    for word in rest:
        if word == "!":
            inverted = True
            continue
        found: bool | None = True
        if word in ("-j", "-g"):
            target, comes_back = next(rest), word == "-j"
        elif word in ("-m", "--comment", "--reject-with", "--limit-burst"):
            next(rest)
        elif word == "--limit":
            next(rest)
            found = True if "ACCEPT" in words else None
        elif word == "--tcp-flags":
            found = True if (next(rest), next(rest)) == ("FIN,SYN,RST,ACK", "SYN") else None
        elif word in ("-p", "-i", "--dport", "--dports", "--ctstate", "--state", "--dst-type"):
            found = _iptables_match(word, next(rest), connection)
        elif word.startswith("-"):
            found = None
        else:
            continue  # of an option that is not known
        matches.append(not found if inverted and found is not None else found)
        inverted = False
    if target in ENDING:
        return Rule(_all(matches), ENDING[target])
    return Rule(_all(matches), chain=target, comes_back=comes_back)


def _iptables_match(option: str, value: str, connection: Connection) -> bool | None:
    if option == "-p":
        return value in ("tcp", "all", "6")
    if option == "-i":
        return _arrives(value.removesuffix("+"), connection, prefix=value.endswith("+"))
    if option in ("--dport", "--dports"):
        return any(_in_range(part, connection.port, ":") for part in value.split(","))
    if option == "--dst-type":
        return value == "LOCAL"
    return "NEW" in value.split(",")


def nft(shown: str, connection: Connection) -> list[Base]:
    """What `nft -j list ruleset` (libnftables-json(5)) says of it: every base chain of the hook
    `input`, without those that iptables makes."""
    entries = json.loads(shown)["nftables"]
    sets = {
        (each["family"], each["table"], each["name"]): each
        for entry in entries
        for kind, each in entry.items()
        if kind in ("set", "map")
    }
    tables: dict[tuple[str, str], dict[str, Chain]] = {}
    bases: list[tuple[str, str, str]] = []
    for entry in entries:
        if each := entry.get("chain"):
            where = (each["family"], each["table"])
            policy = each.get("policy", ACCEPT) if "hook" in each else ""
            tables.setdefault(where, {})[each["name"]] = Chain(policy)
            filters = each.get("hook") == "input" and each["family"] in ("ip", "inet")
            if filters and each["name"] != "INPUT":
                bases.append((*where, each["name"]))
    for entry in entries:
        if each := entry.get("rule"):
            where = (each["family"], each["table"])
            read = _NftRule(connection, where, sets)
            tables[where][each["chain"]].rules += read.rules(each.get("expr", []))
    return [Base(*base, verdict(tables[base[:2]], base[2])) for base in bases]


@dataclass(frozen=True, slots=True)
class _NftRule:
    connection: Connection
    where: tuple[str, str]
    sets: Mapping[tuple[str, str, str], Any]

    def rules(self, statements: Sequence[Mapping[str, Any]]) -> Iterator[Rule]:
        """A rule as it is here: one for each of its verdicts."""
        matches: list[bool | None] = []
        drops = any("drop" in each or "reject" in each for each in statements)
        for each in statements:
            for kind, value in each.items():
                if kind == "match":
                    matches.append(self._match(value))
                elif kind == "limit":
                    matches.append(None if drops or value.get("inv") else True)
                elif kind == "xt":
                    matches.append(None)
                elif kind == "vmap":
                    for found, statement in self._mapped(value):
                        yield self._verdict(statement, match=_all([*matches, found]))
                else:
                    yield self._verdict({kind: value}, match=_all(matches))

    def _verdict(self, statement: Mapping[str, Any], *, match: bool | None) -> Rule:
        ((kind, value),) = statement.items()
        if kind in ("jump", "goto"):
            return Rule(match, chain=value["target"], comes_back=kind == "jump")
        return Rule(
            match, {"reject": DROP}.get(kind, kind if kind in (ACCEPT, DROP, RETURN) else "")
        )

    def _mapped(self, vmap: Mapping[str, Any]) -> Iterator[tuple[bool | None, Mapping[str, Any]]]:
        for key, statement in self._elements(vmap["data"]):
            yield self._is(vmap["key"], key), statement

    def _match(self, match: Mapping[str, Any]) -> bool | None:
        right = match["right"]
        if isinstance(right, list) or _kind(right) == "set" or _is_name(right):
            found = _any([self._is(match["left"], each) for each in self._elements(right)])
        else:
            found = self._is(match["left"], right)
        if match["op"] in ("==", "in"):
            return found
        return not found if match["op"] == "!=" and found is not None else None

    def _elements(self, value: Any) -> list[Any]:
        if _is_name(value):
            value = self.sets.get((*self.where, value[1:]), {}).get("elem", [])
        if _kind(value) == "set":
            value = value["set"]
        plain = [each["elem"] if _kind(each) == "elem" else each for each in value]
        return [each["val"] if isinstance(each, dict) and "val" in each else each for each in plain]

    def _is(self, left: Any, value: Any) -> bool | None:
        """Whether what is looked at has the value, or is in the range."""
        kind = _kind(left)
        what = left[kind] if kind else {}
        if kind == "payload" and what.get("protocol") in ("tcp", "th"):
            if what.get("field") != "dport":
                return None
            if _kind(value) == "range":
                low, high = value["range"]
                return bool(_port(low) <= self.connection.port <= _port(high))
            return _port(value) == self.connection.port
        if kind == "payload" and what.get("protocol") in ("udp", "icmp", "icmpv6", "sctp", "ip6"):
            return False
        asked = what.get("field" if kind == "payload" else "key") if isinstance(what, dict) else ""
        if asked in ("protocol", "l4proto"):
            return value in ("tcp", 6)
        if kind == "ct" and asked == "state":
            return bool(value == "new")
        if kind == "meta" and asked in ("iifname", "iif"):
            return _arrives(str(value).removesuffix("*"), self.connection, prefix="*" in str(value))
        if kind == "meta" and asked == "nfproto":
            return bool(value == "ipv4")
        if kind == "meta" and asked == "pkttype":
            return bool(value == "host")
        return bool(value == "local") if kind == "fib" else None


def _kind(value: Any) -> str:
    """Of an expression, which is an object with one key."""
    return str(next(iter(value))) if isinstance(value, dict) and value else ""


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and value.startswith("@")


def _arrives(interface: str, connection: Connection, *, prefix: bool) -> bool | None:
    if interface == "lo":
        return False
    if not connection.interface:
        return None
    known = connection.interface
    return known.startswith(interface) if prefix else known == interface


def _in_range(text: str, port: int, sign: str) -> bool:
    low, ranged, high = text.partition(sign)
    return _port(low or 0) <= port <= (_port(high or LAST_PORT) if ranged else _port(low))


def _port(value: Any) -> int:
    """0 for a service that is called by its name: an engine's has none."""
    return int(value) if str(value).isdecimal() else 0


def _all(matches: Sequence[bool | None]) -> bool | None:
    if False in matches:
        return False
    return None if None in matches else True


def _any(matches: Sequence[bool | None]) -> bool | None:
    if True in matches:
        return True
    return None if None in matches else False
