"""The command line as a user meets it: streams, codes, first lines, what it loads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from machine import registry
from machine.model import State
from tests import amazon
from tests.machines import made

ROOT = Path(__file__).parents[2]
SDKS = ("libcloud", "boto3", "botocore", "keyring")
HEAVY = ("paramiko", "libvirt", "jinja2", "cryptography", "rich", "asyncio", "pydantic", "requests")


def machine(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "machine", *words],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env={**os.environ, **env},
        check=False,
        timeout=120,
    )


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        (("ip", "nosuch"), 1, 'Docker machine "nosuch" does not exist.'),
        (("status", "../../etc"), 1, 'Docker machine "../../etc" does not exist.'),
        (("ip",), 1, 'No machine name(s) specified and no "default" machine exists'),
        (("create", "-d", "nosuch", "a"), 1, 'Driver "nosuch" not found.'),
        (("create", "a_b"), 1, "Invalid hostname specified"),
        (("create", "x" * 300), 1, "Invalid hostname specified"),
        (("create", "-t", "nosuch", "a"), 2, 'There is no template "nosuch"'),
        (("create", "--libvirt-memory", "2GB", "a"), 2, "--libvirt-memory is '2GB'"),
        (("create", "--libvirt-memory", "1", "a"), 2, "at least 256"),
        (("create", "--libvrt-memory", "1", "a"), 2, "No such option"),
        (("create",), 2, "No machine name specified"),
        (("nosuch",), 2, 'There is no command "nosuch"'),
        (("statsu",), 2, "Did you mean status?"),
        (("ls", "--filter", "colour=red"), 2, "Unsupported filter"),
        (("ls", "--output", "xml"), 2, "must be text or json"),
        (("image", "show", "nosuch"), 1, 'There is no image "nosuch"'),
        (("bundle", "show", "nosuch"), 1, 'There is no bundle "nosuch"'),
        (("active",), 1, "No active host found"),
        (("rm", "nosuch"), 1, 'Docker machine "nosuch" does not exist.'),
    ],
)
def test_what_is_wrong_is_told(words: tuple[str, ...], code: int, line: str) -> None:
    ran = machine(*words)
    assert line in ran.stderr
    assert "Traceback" not in ran.stderr
    assert ran.stdout == ""
    assert ran.returncode == code


BAD_NAME = (
    "Error creating machine: Invalid hostname specified. Allowed hostname chars are: 0-9a-zA-Z . -"
)
NO_NAME = 'Error: No machine name(s) specified and no "default" machine exists'
ONE_NAME = "Error: Expected one machine name as an argument"
NOT_RUNNING = 'Error: Host is not running: "s1" is Stopped'


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        (("status", "nosuch"), 1, 'Docker machine "nosuch" does not exist.'),
        (("stop", "f1", "nosuch"), 1, 'Docker machine "nosuch" does not exist.'),
        (("rm", "-y", "nosuch"), 1, 'Docker machine "nosuch" does not exist.'),
        (("create", "-d", "folder", "f1"), 1, 'Docker machine "f1" already exists'),
        (("create", "-d", "folder", "a_b"), 1, BAD_NAME),
        (("create", "-d", "nosuch", "a"), 1, 'Driver "nosuch" not found.'),
        (
            ("create", "-d", "folder", "--folder-root", "/nonexistent", "a"),
            3,
            "Error with pre-create check: /nonexistent is no folder",
        ),
        *((words, 1, NO_NAME) for words in (("ip",), ("env",), ("ssh",), ("start",), ("url",))),
        *(
            ((command, "f1", "s1"), 1, ONE_NAME)
            for command in ("config", "env", "inspect", "status", "url", "version")
        ),
        *(
            ((command, "s1"), 1, NOT_RUNNING)
            for command in ("config", "env", "ssh", "url", "version", "provision")
        ),
        (("scp", "s1:a", "b"), 1, NOT_RUNNING),
        (("rm",), 1, "Error: Expected to get one or more machine names as arguments"),
        (("env", "-u", "f1"), 1, "Error: Expected no machine name when the -u flag is present"),
        (("env", "--swarm", "f1"), 1, 'Error: "f1" is not a swarm master'),
        (("config", "--swarm", "f1"), 1, 'Error: "f1" is not a swarm master'),
        (("start", "f1"), 1, 'Error: Host "f1" is already running'),
        (("stop", "s1"), 1, 'Error: Host "s1" is already stopped'),
        (("kill", "s1"), 1, 'Error: Host "s1" is already stopped'),
        (("active",), 1, "Error: No active host found"),
    ],
)
def test_lines_that_scripts_compare(
    host: str, stopped: str, words: tuple[str, ...], code: int, line: str
) -> None:
    ran = machine(*words)
    assert line in ran.stderr.splitlines()
    assert (ran.returncode, ran.stdout) == (code, "")
    assert machine("status", host).stdout == "Running\n"  # nothing was done for the others


def test_an_engine_that_answers(engine: str, own_home: Path) -> None:
    folder = own_home / ".docker" / "machine" / "machines" / engine
    url = machine("url", engine).stdout.strip()
    assert machine("version", engine).stdout == "26.1.5\n"
    assert machine("config", engine).stdout.splitlines() == [
        "--tlsverify",
        f'--tlscacert="{folder}/ca.pem"',
        f'--tlscert="{folder}/cert.pem"',
        f'--tlskey="{folder}/key.pem"',
        f"-H={url}",
    ]
    shown = machine("env", "--shell", "bash", "--no-proxy", engine, NO_PROXY="a,b")
    assert shown.stdout.splitlines() == [
        'export DOCKER_TLS_VERIFY="1"',
        f'export DOCKER_HOST="{url}"',
        f'export DOCKER_CERT_PATH="{folder}"',
        f'export DOCKER_MACHINE_NAME="{engine}"',
        'export NO_PROXY="a,b,127.0.0.1"',
        "# Run this command to configure your shell:",
        f"# eval $(machine env --shell bash --no-proxy {engine})",
    ]
    listed = machine(
        "ls", "-f", "{{.Name}} {{.Active}} {{.DockerVersion}} {{.Error}}", DOCKER_HOST=url
    )
    assert listed.stdout == f"{engine} * v26.1.5 \n"
    assert machine("active", DOCKER_HOST=url).stdout == f"{engine}\n"


@pytest.mark.parametrize(
    ("shell", "word"), [("/bin/fish", "set -gx"), ("/bin/nu", "export"), ("", "export")]
)
def test_a_shell_that_is_not_known_is_written_to_as_sh(engine: str, shell: str, word: str) -> None:
    assert machine("env", engine, SHELL=shell).stdout.startswith(f"{word} DOCKER_TLS_VERIFY")


def test_debug_stands_anywhere_and_is_a_boolean_of_go() -> None:
    for words in (("-D", "ip", "nosuch"), ("ip", "--debug", "nosuch"), ("ip", "nosuch", "-debug")):
        ran = machine(*words)
        assert "Traceback" in ran.stderr
        assert ran.stderr.splitlines()[-2] == 'Docker machine "nosuch" does not exist.'
        assert ran.returncode == 1
    assert "Traceback" in machine("ip", "nosuch", MACHINE_DEBUG="T").stderr
    assert "Traceback" not in machine("ip", "nosuch", MACHINE_DEBUG="0").stderr
    ran = machine("ls", MACHINE_DEBUG="maybe")
    assert (ran.returncode, ran.stdout) == (1, "")
    assert "MACHINE_DEBUG is 'maybe', and must be true or false" in ran.stderr


def test_help_is_a_command_too() -> None:
    assert machine("help", "create", "-d", "libvirt").stdout == machine("create", "--help").stdout
    assert machine("help").stdout == machine("--help").stdout
    assert machine("help", "nosuch").returncode == 2


def test_rsync_is_asked_for_where_it_is_missing(host: str) -> None:
    ran = machine("scp", "-d", "a", f"{host}:b", PATH="/nonexistent")
    assert ran.returncode == 1
    assert "The program rsync is not installed here" in ran.stderr
    ran = machine("scp", "-d", f"{host}:a", f"{host}:b")
    assert ran.returncode == 2
    assert "-d copies between this computer and one machine" in ran.stderr


def test_errors_as_json() -> None:
    ran = machine("ip", "nosuch", "--output", "json")
    assert ran.returncode == 2  # ip has no such option: still no traceback
    ran = machine("start", "nosuch", "--output", "json")
    error = json.loads(ran.stdout)
    assert error["data"]["kind"] == "HostNotFound"
    assert error["data"]["exit_code"] == ran.returncode == 1


def test_docker_machines_global_flags_are_taken(own_home: Path) -> None:
    ran = machine("--bugsnag-api-token=no-report", "--native-ssh", "ls", "-q")
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
    ran = machine("--tls-ca-cert", "ca.pem", f"--storage-path={own_home}/store", "ls", "-q")
    assert (ran.returncode, ran.stdout) == (0, "")
    assert ran.stderr == (
        f"Warning: --tls-* is ignored: certificates and their keys are in {own_home}/store/certs\n"
    )
    assert "is ignored" in machine("ls", "-q", MACHINE_TLS_CA_KEY="key.pem").stderr


def test_flags_stand_before_or_after_the_name(host: str) -> None:
    for words in ((host, "-f", "{{.Name}}"), ("-f", "{{.Name}}", host)):
        assert machine("inspect", *words).stdout == f"{host}\n"


def test_gitlab_runners_certificate_path(host: str, own_home: Path) -> None:
    shown = machine("inspect", host, "-f", "{{.HostOptions.AuthOptions.StorePath}}")
    assert shown.stdout.strip() == str(own_home / ".docker" / "machine" / "machines" / host)


def test_a_field_that_is_not_there_prints_as_with_docker_machine(host: str) -> None:
    shown = machine("inspect", host, "-f", "{{.Driver.Nosuch}} {{json .Driver.SSHPort}}")
    assert (shown.returncode, shown.stdout) == (0, "<no value> 22\n")


def test_the_table_is_docker_machines_to_the_blank(host: str) -> None:
    listed = machine("ls", "-t", "5")
    assert listed.stdout.splitlines() == [
        "NAME   ACTIVE   DRIVER   STATE     URL                    SWARM   DOCKER    ERRORS",
        "f1     -        folder   Running   tcp://127.0.0.1:2376           Unknown   "
        + listed.stdout.splitlines()[1][76:],
    ]
    active = machine("ls", "-f", "{{.Active}}", DOCKER_HOST="tcp://127.0.0.1:2376")
    assert active.stdout == "*\n"


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (("-f", r"{{.Name}}\t{{.State}}\n{{.DriverName}}"), "f1\tRunning\nfolder\n"),
        (("--format=table {{.Name}}\\t{{.State}}",), "NAME   STATE\nf1     Running\n"),
        (
            ("-f", "{{.Name}}: {{range .EngineOptions.Labels}}{{.}}{{end}}"),
            "f1: a=b\n",
        ),
        (("-q", "--filter", "state=running", "--format", "{{.Nosuch}}"), "f1\n"),
        (("--filter", "name=z", "-f", "table {{.URL}}"), "URL\n"),
        (("-f", "{{.ActiveHost}} {{.ActiveSwarm}} {{.Swarm}}"), "false false \n"),
    ],
)
def test_a_listing_in_the_users_own_words(host: str, words: tuple[str, ...], shown: str) -> None:
    listed = machine("ls", *words)
    assert (listed.returncode, listed.stdout) == (0, shown)


def test_every_field_of_a_listing_has_its_heading(host: str) -> None:
    heads = {
        "Name": "NAME",
        "Active": "ACTIVE",
        "ActiveHost": "ACTIVE_HOST",
        "ActiveSwarm": "ACTIVE_SWARM",
        "DriverName": "DRIVER",
        "State": "STATE",
        "URL": "URL",
        "SwarmOptions": "SWARM_OPTIONS",
        "Swarm": "SWARM",
        "EngineOptions": "ENGINE_OPTIONS",
        "Error": "ERRORS",
        "DockerVersion": "DOCKER",
        "ResponseTime": "RESPONSE",
    }
    form = "table " + r"\t".join(f"{{{{.{name}}}}}" for name in heads)
    listed = machine("ls", "-f", form)
    assert (listed.returncode, listed.stdout.split("\n")[0].split()) == (0, list(heads.values()))
    unknown = machine("ls", "-f", "{{.Name}} {{.Colour}}")
    assert unknown.returncode == 2
    assert "at character 13: there is no field Colour; there are Name, Active," in unknown.stderr


def test_every_machine_is_listed_whatever_is_wrong_with_it(host: str, own_home: Path) -> None:
    machines = own_home / ".docker" / "machine" / "machines"
    (machines / "broken").mkdir()
    (machines / "broken" / "config.json").write_text("{")
    (machines / "foreign").mkdir()
    foreign = {"ConfigVersion": 3, "DriverName": "vmware", "Driver": {}, "HostOptions": {}}
    (machines / "foreign" / "config.json").write_text(json.dumps(foreign))
    listed = machine("ls")
    assert listed.returncode == 0, listed.stderr
    rows = {line.split()[0]: line for line in listed.stdout.splitlines()[1:]}
    assert "Error" in rows["broken"]
    assert "cannot be read" in rows["broken"]
    assert 'Driver "vmware" not found' in rows["foreign"]
    assert "Running" in rows[host]
    assert machine("rm", "-f", "broken", "foreign").returncode == 0
    assert machine("ls", "-q").stdout == f"{host}\n"


def test_removal_asks_and_says_so_where_nobody_can_answer(host: str) -> None:
    refused = machine("rm", host)
    assert refused.returncode == 2
    assert "Add -y" in refused.stderr
    assert machine("rm", "-y", host).returncode == 0
    assert machine("ls", "-q").stdout == ""


def test_env_of_a_machine_whose_engine_is_silent_prints_nothing(host: str) -> None:
    ran = machine("env", host)
    assert (ran.returncode, ran.stdout) == (1, "")


def test_stop_and_status(host: str) -> None:
    assert machine("status", host).stdout == "Running\n"
    assert machine("stop", host).returncode == 0
    assert machine("status", host).stdout == "Stopped\n"
    assert "Host is not running" in machine("url", host).stderr


def test_a_host_that_is_gone_has_its_own_code(host: str, own_home: Path) -> None:
    from machine.store import Store

    record = Store().load(host)
    (Store().folder(host).root / record.ours.id / "state").unlink()
    ran = machine("status", host)
    assert (ran.returncode, ran.stdout) == (4, "Not Found\n")


def test_a_store_that_cannot_be_written_is_named(own_home: Path) -> None:
    (own_home / "file").write_text("")
    ran = machine("-s", str(own_home / "file"), "create", "-d", "libvirt", "a")
    assert ran.returncode == 1
    assert "the store" in ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("--help",),
        ("--version",),
        ("ls",),
        ("ls", "-q"),
        ("status", "f1"),
        ("env", "f1"),
        ("env", "e1"),
        ("ip", "e1"),
        ("url", "e1"),
        ("config", "e1"),
        ("stop", "f1"),
        ("create", "--help"),
        ("completion", "bash"),
        ("drivers",),
        ("drivers", "folder"),
    ],
)
def test_common_commands_load_nothing_heavy(words: tuple[str, ...], host: str, engine: str) -> None:
    assert _loaded(words, (*HEAVY, *SDKS)) == "[]"


@pytest.mark.parametrize(
    ("words", "spared"),
    [
        (("status", "f1"), ("ssl", "http.client", "concurrent.futures")),
        (("url", "f1"), ("ssl", "http.client", "hashlib")),
        (("env", "e1"), ("http.client", "concurrent.futures")),
        (("ls",), ("http.client", "concurrent.futures", "machine.ssh")),
        (("ls", "-q"), ("ssl", "http.client", "machine.runtime")),
        (("status", "l1"), ("ssl", "http.client", "urllib.request", "tarfile", "machine.seed")),
    ],
)
def test_common_commands_load_what_they_use(
    words: tuple[str, ...], spared: tuple[str, ...], host: str, engine: str
) -> None:
    made("l1", "libvirt", State.STOPPED)
    assert _loaded(words, spared) == "[]"


SDKS = ("boto3", "botocore", "libcloud", "keyring")


@pytest.mark.parametrize(
    "words",
    [
        ("create", "-d", "amazonec2", "--help"),
        ("create", "-d", "google", "--help"),
        ("ls",),
        ("status", "a1"),
        ("doctor",),
    ],
)
def test_no_sdk_is_loaded_where_no_provider_is_asked(
    words: tuple[str, ...], host: str, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Machines whose create ended before anything was made, and nothing configured."""
    for variable in (*amazon.VARIABLES, "DIGITALOCEAN_ACCESS_TOKEN", "LINODE_TOKEN"):
        monkeypatch.delenv(variable, raising=False)
    made("a1", "amazonec2", State.STOPPED)
    made("d1", "digitalocean", State.STOPPED)
    assert _loaded(words, SDKS) == "[]"


@pytest.mark.parametrize(
    "line",
    [
        "machine s",
        "machine ssh ",
        "machine create -d libvirt --libvirt-m",
        "machine create -d ",
        "machine create -t ",
        "machine image verify ",
        "machine bundle show ",
        "machine scp ",
    ],
)
def test_completion_loads_nothing_heavy(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_MACHINE_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", line)
    assert _heavy_modules(()) == "[]"


@pytest.mark.parametrize("driver", registry.DRIVERS)
def test_a_drivers_options_are_shown_without_its_library(driver: str) -> None:
    for words in (("create", "-d", driver, "--help"), ("drivers", driver)):
        assert _loaded(words, (*HEAVY, *SDKS)) == "[]"


def _heavy_modules(words: tuple[str, ...]) -> str:
    return _loaded(words, HEAVY)


def _loaded(words: tuple[str, ...], modules: tuple[str, ...]) -> str:
    program = (
        "import sys\nfrom machine.__main__ import run\n"
        f"run({list(words)!r})\n"
        f"print([name for name in {modules!r} if name in sys.modules], file=sys.stderr)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=ROOT
    )
    return ran.stderr.splitlines()[-1]
