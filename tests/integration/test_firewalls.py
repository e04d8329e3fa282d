"""Each firewall itself, in a network namespace of its own: what closes the port, what opens it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from machine import firewall
from machine.firewall import Obstacle
from machine.wait import until
from tests.firewalled import Firewalled, firewalled

PORT = 2376


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Firewalled]:
    with firewalled(tmp_path_factory.mktemp("firewalled")) as guest:
        yield guest


@pytest.fixture(autouse=True)
def empty(host: Firewalled) -> Iterator[None]:
    yield
    host.script("nft flush ruleset\nufw --force disable >/dev/null\nrm -f /etc/iptables/rules.v4")
    assert firewall.look(host, PORT) == []


def one(host: Firewalled) -> Obstacle:
    (found,) = firewall.look(host, PORT)
    return found


def opens_and_closes(host: Firewalled, rules: str) -> None:
    """The obstacle is gone once it is opened, and everything is as before once it is closed."""
    before = host.script(rules).stdout
    obstacle = one(host)
    for _ in range(2):
        firewall.open_port(host, obstacle)
        assert firewall.look(host, PORT) == []
    for _ in range(2):
        firewall.close_port(host, obstacle.closing)
        assert host.script(rules).stdout == before


def test_no_firewall_is_no_obstacle(host: Firewalled) -> None:
    assert firewall.look(host, PORT) == []


def test_nftables_whose_chain_drops(host: Firewalled) -> None:
    rules = (
        "flush ruleset\n"
        "table inet filter {\n"
        "  set ports { type inet_service; elements = { 22, 80 } }\n"
        "  chain input {\n"
        "    type filter hook input priority filter; policy drop;\n"
        "    ct state vmap { established : accept, related : accept, invalid : drop }\n"
        '    iifname "lo" accept\n'
        "    icmp type echo-request limit rate 4/second accept\n"
        "    ip saddr 10.0.0.0/8 accept\n"
        "    tcp dport @ports counter accept\n"
        "  }\n"
        "}\n"
    )
    host.put(rules.encode(), "/etc/nftables.conf")
    host.run("nft", "-f", "/etc/nftables.conf")
    obstacle = one(host)
    assert obstacle.firewall == "nftables"
    assert 'its chain "inet filter input" drops' in obstacle.text
    assert obstacle.lasting
    opens_and_closes(host, "nft list ruleset; cat /etc/nftables.conf")
    firewall.open_port(host, obstacle)
    host.run("nft", "-f", "/etc/nftables.conf")  # as at a boot
    assert firewall.look(host, PORT) == []
    firewall.close_port(host, obstacle.closing)
    assert host.get("/etc/nftables.conf") == rules.encode()


@pytest.mark.parametrize(
    ("rule", "closed"),
    [
        ("reject", True),
        ("tcp dport 2000-3000 accept; reject", False),
        ("tcp dport != 22 drop", True),
        ("tcp dport vmap { 22 : accept, 2376 : accept }; drop", False),
        ("meta l4proto udp drop", False),
        ("ip saddr 10.0.0.1 drop", False),
        ("ip saddr 10.0.0.1 accept; drop", True),
        ("jump allowed; drop", False),
        ("goto allowed", False),
        ("ct state new jump others; drop", True),
        ("tcp dport 2376 limit rate over 10/second drop", False),
        ("tcp dport 2376 limit rate 10/second accept; drop", False),
        ("meta nfproto ipv6 accept; meta nfproto ipv4 drop", True),
    ],
)
def test_what_nftables_rules_do(host: Firewalled, rule: str, closed: bool) -> None:
    host.script(
        "nft -f - <<'END'\ntable inet t {\n"
        "  chain allowed { tcp dport { 22, 2376 } accept; }\n"
        "  chain others { tcp dport 80 accept; }\n"
        f"  chain in {{ type filter hook input priority 0; policy accept; {rule}; }}\n}}\nEND\n"
    )
    assert bool(firewall.look(host, PORT)) is closed


def test_nftables_that_nothing_loads_at_a_boot(host: Firewalled) -> None:
    host.put(b"#!/usr/sbin/nft -f\n", "/etc/nftables.conf")
    host.script(
        "nft add table ip t\nnft 'add chain ip t c { type filter hook input priority 0; "
        "policy drop; }'"
    )
    assert not one(host).lasting
    opens_and_closes(host, "nft list ruleset")


@pytest.mark.parametrize("program", ["iptables", "iptables-legacy"])
def test_iptables_whose_policy_drops(host: Firewalled, program: str) -> None:
    host.run("mkdir", "-p", "/etc/iptables")
    host.script(
        f"{program} -A INPUT -i lo -j ACCEPT\n"
        f"{program} -A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n"
        f"{program} -A INPUT -p tcp -m multiport --dports 22,80:90 -j ACCEPT\n"
        f"{program} -A INPUT -s 10.0.0.0/8 -j ACCEPT\n"
        f"{program} -A INPUT -j LOG --log-prefix 'a b '\n"
        f"{program} -P INPUT DROP\n"
    )
    if program == "iptables":
        host.script("iptables-save > /etc/iptables/rules.v4")
    obstacle = one(host)
    assert obstacle.firewall == "iptables"
    assert obstacle.lasting == (program == "iptables")
    opens_and_closes(host, f"{program} -S; cat /etc/iptables/rules.v4 2>/dev/null || true")
    if program == "iptables":
        firewall.open_port(host, obstacle)
        host.script("iptables-restore /etc/iptables/rules.v4")  # as at a boot
        assert firewall.look(host, PORT) == []
    host.script(f"{program} -P INPUT ACCEPT\n{program} -F\n")


def test_iptables_that_rejects_at_the_end(host: Firewalled) -> None:
    host.script(
        "iptables -N mine\niptables -A INPUT -p tcp -j mine\n"
        "iptables -A mine -p tcp --dport 22 -j ACCEPT\niptables -A mine -p udp -j DROP\n"
        "iptables -A INPUT ! -i lo -j REJECT --reject-with icmp-host-prohibited\n"
    )
    assert one(host).firewall == "iptables"
    host.script("iptables -A mine -p tcp --dport 2000:3000 -j ACCEPT")
    assert firewall.look(host, PORT) == []


def test_ufw(host: Firewalled) -> None:
    host.script("ufw allow 22/tcp >/dev/null\nufw --force enable >/dev/null")
    assert one(host).firewall == "ufw"
    opens_and_closes(host, "ufw status verbose; cat /etc/ufw/user.rules")
    host.script("ufw deny 2376 >/dev/null")
    forbidden = one(host)
    assert "A rule of ufw's forbids TCP port 2376: 2376 DENY" in forbidden.text
    assert forbidden.opening == ()
    host.script("ufw delete deny 2376 >/dev/null\nufw default allow incoming >/dev/null")
    assert firewall.look(host, PORT) == []
    host.script("ufw default deny incoming >/dev/null")


def test_firewalld(host: Firewalled) -> None:
    host.script(
        "dbus-daemon --system --fork\n"
        "firewalld --nofork --nopid </dev/null >/run/firewalld.log 2>&1 &\n"
        "echo $! > /run/firewalld.pid\n"
    )
    until("firewalld", lambda: host.run("firewall-cmd", "--state", check=False).ok, timeout=60)
    obstacle = one(host)
    assert obstacle.firewall == "firewalld"
    assert 'its zone "public" does not list it' in obstacle.text
    opens_and_closes(host, "firewall-cmd --list-all; firewall-cmd --permanent --list-all")
    firewall.open_port(host, obstacle)
    host.run("firewall-cmd", "--quiet", "--reload")  # as at a boot
    assert firewall.look(host, PORT) == []
    firewall.close_port(host, obstacle.closing)
    host.run("firewall-cmd", "--quiet", "--add-port=2000-3000/tcp")
    assert firewall.look(host, PORT) == []
    host.run("firewall-cmd", "--quiet", "--remove-port=2000-3000/tcp")
    host.run("firewall-cmd", "--quiet", "--set-default-zone=trusted")
    assert firewall.look(host, PORT) == []
    host.script("kill $(cat /run/firewalld.pid)")
    until(
        "firewalld's end",
        lambda: not host.run("firewall-cmd", "--state", check=False).ok,
        timeout=60,
    )
