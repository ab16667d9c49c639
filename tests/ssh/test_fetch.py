"""Nodes that fetch K3s from the web themselves: from a mirror with TLS on their own network."""

import hashlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from guest.conftest import CLI, Done
from rig.hosts import Host
from rig.lan import OWN, Lan
from rig.releases import VERSION, Mirror
from rig.running import Person

from ssh.adopting import executions, logins, outcomes
from ssh.conftest import Machines, Operator

pytestmark = pytest.mark.ssh

IMAGES = os.urandom(3_000_000)
BINARIES = {"k3s": b"", "k3s-armhf": b"\n# for an armhf\n", "k3s-arm64": b"\n# for an arm64\n"}
"""What tells them apart: behind a program, a real one too, it does no harm."""


@pytest.fixture
def mirror(lan: Lan, k3s: list[str], tmp_path: Path) -> Iterator[Mirror]:
    files = {name: Path(k3s[1]).read_bytes() + mark for name, mark in BINARIES.items()}
    files |= {"k3s-airgap-images-amd64.tar.gz": IMAGES}
    made = Mirror(tmp_path / "mirror", lan.inside, OWN, files)
    yield made
    made.close()


@pytest.fixture
def fetch(
    lan: Lan, environment: dict[str, str], adopting: list[str], person: Person, mirror: Mirror, tmp_path: Path
) -> Operator:
    """adopt --fetch node, by an operator who trusts the mirror, with a cache of their own."""
    words = [
        *adopting[:3],
        "--k3s",
        VERSION,
        "--accept-new",
        "--fetch",
        "node",
        "--mirror",
        mirror.url,
        "--json",
    ]
    env = {**environment, "HOME": str(person.home), "REQUESTS_CA_BUNDLE": str(mirror.authority)}

    def run(*arguments: object) -> Done:
        command = lan.inside(CLI, *words, *map(str, arguments))
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300, check=False)
        assert "Traceback" not in done.stderr
        return Done(done.returncode, done.stdout, done.stderr)

    return run


def trust(host: Host, mirror: Mirror) -> None:
    """By the system's own store."""
    host.path("usr/local/share/ca-certificates/mirror.crt").write_text(mirror.authority.read_text())
    host.run("update-ca-certificates")


def test_each_node_fetches_it_and_the_operator_does_not(
    machines: Machines, fetch: Operator, mirror: Mirror, environment: dict[str, str]
) -> None:
    hosts = machines(10, 11)
    for host in hosts:
        trust(host, mirror)
    done = fetch(*logins(*hosts))
    assert done.code == 0, done.err + done.out
    assert "fetching (k3s)" in done.err
    assert all(one["ready"] for one in outcomes(done).values())
    for host in hosts:
        assert (
            host.path("var/lib/rancher/k3s/agent/images/k3s-airgap-images-amd64.tar.gz").read_bytes()
            == IMAGES
        )
        assert host.run("ls /var/lib/k3s-bake/parts", check=False) == ""
        assert executions(host) == 2
    names = ["k3s", "k3s-airgap-images-amd64.tar.gz"]
    for host in hosts:
        assert [name for who, name, _ in mirror.asked() if who == host.address] == names
    kept = Path(environment["K3S_BAKE_HOME"], "cache/k3s", VERSION)
    assert [path.name for path in kept.iterdir() if not path.name.endswith(".lock")] == [
        "sha256sum-amd64.txt"
    ]
    again = fetch(*logins(*hosts))
    assert all(one["changes"] == [] for one in outcomes(again).values()), again.out


def test_a_node_that_does_not_trust_or_reach_it_says_so_and_is_sent_it(
    machines: Machines, fetch: Operator, mirror: Mirror, adopt: Operator
) -> None:
    master, stranger, cut_off, partial = hosts = machines(10, 11, 12, 13)
    for host in (master, cut_off, partial):
        trust(host, mirror)
    cut_off.run("iptables -A OUTPUT -p tcp --dport 8443 -j REJECT --reject-with tcp-reset")
    k3s = (mirror.files / "k3s").read_bytes()
    part = partial.path(f"var/lib/k3s-bake/parts/{hashlib.sha256(k3s).hexdigest()}")
    part.parent.mkdir(parents=True)
    part.write_bytes(k3s[:1000])
    done = fetch(*logins(*hosts))
    found = outcomes(done)
    assert found[master.address]["phase"] == "joined", done.out
    assert found[partial.address]["phase"] == "joined"
    assert [partial.address, "k3s", "bytes=1000-"] in mirror.asked()
    assert f"{OWN} shows it a certificate that it does not trust" in found[stranger.address]["error"]
    assert "clock" in found[stranger.address]["hint"]
    assert found[cut_off.address]["error"] == f"it does not reach {OWN}: Connection refused"
    assert "Leave out --fetch node" in found[cut_off.address]["hint"]
    healed = adopt(*logins(*hosts), "--json")
    assert all(one["ready"] for one in outcomes(healed).values()), healed.out


def test_each_gets_the_k3s_of_its_own_processor(machines: Machines, fetch: Operator, mirror: Mirror) -> None:
    """A PC as the master, and two kinds of Pis: by dpkg's word and one program. All run on this machine's."""
    hosts = machines(10, 11, 12)
    kinds = {"armhf": (1, 40), "arm64": (2, 183)}
    for host, (name, (bits, machine)) in zip(hosts[1:], kinds.items(), strict=True):
        host.run(f"sed -i 's/^Architecture: amd64/Architecture: {name}/' /var/lib/dpkg/status")
        head = b"\x7fELF" + bytes([bits, 1, 1]) + bytes(9) + b"\2\0" + bytes([machine, 0]) + bytes(44)
        host.path("bin/ls").write_bytes(head)
    done = fetch("--fetch", "operator", "--airgap", "none", *logins(*hosts))
    assert done.code == 0, done.err + done.out
    assert all(one["ready"] for one in outcomes(done).values())
    for host, mark in zip(hosts, BINARIES.values(), strict=True):
        assert host.path("usr/local/bin/k3s").read_bytes() == (mirror.files / "k3s").read_bytes() + mark
    assert sorted(name for _, name, _ in mirror.asked() if not name.endswith(".txt")) == sorted(BINARIES)
    again = fetch("--fetch", "operator", "--airgap", "none", *logins(*hosts))
    assert all(one["changes"] == [] for one in outcomes(again).values()), again.out
