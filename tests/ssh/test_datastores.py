"""Masters whose datastore is a real PostgreSQL or MariaDB elsewhere on their network."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import quote

import pytest
from rig.databases import MariaDb, Postgres, give_clients, running
from rig.hosts import Host
from rig.lan import Lan

from ssh.adopting import outcomes
from ssh.conftest import Machines, Operator

pytestmark = pytest.mark.ssh

PASSWORD = "p@ss:w/rd%40?#x&longer-than-24"
WRONG = "wr0ng-and-just-as-long-as-it"
FILE = "etc/rancher/k3s/config.yaml.d/k3s-bake-datastore.yaml"

Databases = Callable[[type[Postgres | MariaDb]], Postgres | MariaDb]


@pytest.fixture
def databases(lan: Lan) -> Iterator[Databases]:
    with ExitStack() as stack:
        yield lambda kind: stack.enter_context(running(kind, PASSWORD, lan))


@pytest.fixture
def file(tmp_path: Path) -> Callable[..., Path]:
    """A cluster.toml of so many masters, and workers."""

    def write(url: str, hosts: list[Host], masters: int = 1, password: str = PASSWORD) -> Path:
        secret = tmp_path / "datastore.password"
        secret.write_text(f"{password}\n")
        secret.chmod(0o600)
        text = f'[cluster]\nname = "home"\nuser = "pi"\ndatastore = "{url}"\n'
        text += f'datastore_password_file = "{secret.name}"\n'
        for at, host in enumerate(hosts):
            role = "master" if at < masters else "worker"
            text += f'[[node]]\nrole = "{role}"\nhost = "{host.address}"\n'
            text += "join = true\n" if 0 < at < masters else ""
        (tmp_path / "cluster.toml").write_text(text)
        return tmp_path / "cluster.toml"

    return write


def check_shows_nothing(*told: str) -> None:
    for password in (PASSWORD, WRONG):
        for form in (password, quote(password, safe="")):
            assert not any(form in text for text in told)


def check_a_reset_keeps_the_cluster(master: Host, operator: Operator) -> None:
    """Which its token opens, that nobody else may have."""
    kept = ("var/lib/rancher/k3s/server/tls/server-ca.crt", "etc/rancher/k3s/agent-token", FILE)
    before = [master.text(path) for path in kept]
    done = operator("reset", f"pi@{master.address}", "--json")
    assert done.code == 0, done.err + done.out
    assert [master.text(path) for path in kept] == before


def test_two_masters_and_a_worker_on_postgresql(
    machines: Machines,
    adopt: Operator,
    operator: Operator,
    databases: Databases,
    file: Callable[..., Path],
    tmp_path: Path,
) -> None:
    first, second, worker = hosts = machines(10, 11, 12)
    for host in (first, second):
        give_clients(host)
    database = databases(Postgres)
    cluster, page = file(database.url, hosts, masters=2), tmp_path / "page.html"
    dry = adopt("--file", cluster, "--dry-run")
    assert dry.code == 0, dry.err
    done = adopt("--file", cluster, "--json", "--report", page)
    assert done.code == 0, done.err + done.out
    assert all(one["ready"] for one in outcomes(done).values())
    assert len(database.kept()) == 1, "one cluster"
    ca = [host.text("var/lib/rancher/k3s/server/tls/server-ca.crt") for host in (first, second)]
    assert ca[0] == ca[1] != ""
    for host in (first, second):
        assert host.run(f"stat -c '%a %u' /{FILE}") == "600 0"
        assert "cluster-init" not in host.text("etc/rancher/k3s/config.yaml")
    assert f'server: "https://{first.address}:6443"' in second.text("etc/rancher/k3s/config.yaml")
    assert worker.text(FILE) == ""
    rows = first.run("k3s kubectl get nodes").splitlines()[1:]
    assert [row.split()[1] for row in rows] == ["Ready"] * 3
    assert not any("etcd" in row for row in rows)
    again = adopt("--file", cluster, "--json")
    assert again.code == 0, again.err + again.out
    assert all(one["changes"] == [] for one in outcomes(again).values())
    record = first.text("etc/k3s-bake/node.json")
    assert json.loads(record)["datastore"] == {"url": database.url}
    check_shows_nothing(dry.out, dry.err, done.out, done.err, again.out, page.read_text(), record)
    check_a_reset_keeps_the_cluster(first, operator)
    assert len(database.kept()) == 1


def test_a_wrong_password_on_mariadb_is_told_and_the_right_one_heals_it(
    machines: Machines, adopt: Operator, databases: Databases, file: Callable[..., Path]
) -> None:
    (master,) = machines(10)
    give_clients(master)
    database = databases(MariaDb)
    done = adopt("--file", file(database.url, [master], password=WRONG), "--json", "--timeout", "25")
    assert done.code == 1, done.out
    failed = outcomes(done)[master.address]
    assert "not Ready after 25 s: starting" in failed["error"]
    assert "Access denied for user 'k3s'" in failed["hint"]
    done_again = adopt("--file", file(database.url, [master]), "--json")
    assert done_again.code == 0, done_again.err + done_again.out
    found = outcomes(done_again)[master.address]
    assert [one["edit"]["path"] for one in found["changes"]] == [f"/{FILE}"]
    assert found["ready"]
    assert len(database.kept()) == 1
    check_shows_nothing(done.out, done.err, done_again.out, done_again.err)


def test_a_server_that_is_not_there_is_told_before_anything_is_changed(
    machines: Machines, adopt: Operator, operator: Operator, databases: Databases, file: Callable[..., Path]
) -> None:
    """And a switch away from a state that stays behind is refused."""
    (master,) = machines(10)
    give_clients(master)
    database = databases(Postgres)
    cluster = file(database.url, [master])
    database.stop()
    for done in (
        operator("preflight", "--file", cluster, "--accept-new", "--json"),
        adopt("--file", cluster, "--json"),
    ):
        assert done.code == 2, done.err
        told = outcomes(done)[master.address]
        assert (
            told["error"] == f"it does not reach its datastore at {database.address}:5432: connection refused"
        )
        assert "firewall" in told["hint"]
    assert master.text("etc/k3s-bake/node.json") == ""
    assert adopt("--master", f"pi@{master.address}").code == 0
    database.start()
    refused = adopt("--file", cluster, "--json")
    assert refused.code == 2
    assert "does not move to postgres://" in outcomes(refused)[master.address]["error"]
    taken = adopt("--file", cluster, "--json", "--take-over")
    assert taken.code == 0, taken.err + taken.out
    assert outcomes(taken)[master.address]["ready"]
    assert len(database.kept()) == 1
