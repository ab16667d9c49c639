"""Certificates and revocation lists that the real ssh-keygen makes, and what it says of them."""

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bake import cache, process, trust
from bake.trust import Cluster, Proof
from firstboot import certificate, contract, revocations
from firstboot.contract import MASTER, REVOKED, WORKER
from firstboot.errors import UserError, WorkFailed

pytestmark = pytest.mark.net


@pytest.fixture
def home(tmp_path: Path) -> cache.Home:
    folder = tmp_path / "a folder's name"  # with what shells and ssh take apart
    return cache.Home(folder / "cache", folder / "data")


@pytest.fixture
def cluster(home: cache.Home) -> Cluster:
    return trust.open_cluster("home", home, lambda text: None)


def _told(proof: Proof, folder: Path) -> dict[str, str]:
    """What ssh-keygen reads in a certificate; the private key belongs to it."""
    key, signed = folder / "k", folder / "k-cert.pub"
    key.touch(0o600)
    key.write_text(proof.key)
    signed.write_text(proof.certificate)
    public = process.run("ssh-keygen", "-y", "-f", str(key))
    assert certificate.public_key(public) == certificate.read(proof.certificate).key
    lines = process.run("ssh-keygen", "-L", "-f", str(signed)).splitlines()
    told = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    told["all"] = "\n".join(lines)
    return told


def test_what_cards_carry(cluster: Cluster, tmp_path: Path) -> None:
    told = _told(cluster.golden(WORKER), tmp_path)
    assert told["Key ID"] == '"golden/worker"'
    assert told["Type"].endswith("user certificate")
    assert told["Valid"].startswith("before ")  # from always on: clocks of nodes are years back
    assert "k3s-worker" in told["all"]
    assert "permit-" not in told["all"]
    assert certificate.fingerprint(cluster.public_key) in told["Signing CA"]
    assert told["Serial"] == str(cluster.issued()[-1].serial)
    assert _told(cluster.golden(MASTER), tmp_path)["Key ID"] == '"golden/master"'
    assert _told(cluster.card("w1", WORKER), tmp_path)["Key ID"] == '"w1"'


def test_a_masters_host_certificate(cluster: Cluster, tmp_path: Path) -> None:
    told = _told(cluster.host(), tmp_path)
    assert told["Type"].endswith("host certificate")
    assert told["Valid"] == "forever"
    assert "k3s-bake-home" in told["all"]


def test_no_path_of_the_operator_is_in_what_cards_carry(cluster: Cluster) -> None:
    for proof in (cluster.golden(WORKER), cluster.card("w1", WORKER), cluster.host()):
        assert len(proof.certificate.split()) == 2
        assert len(cluster.public_key.split()) == 2


def test_revoked_is_what_was_signed_until_now(cluster: Cluster, tmp_path: Path) -> None:
    master = Master(tmp_path / "master", cluster)

    def is_revoked(proof: Proof) -> bool:
        revocations.add([one.line for one in cluster.revoked()], str(master.root))
        (tmp_path / "c.pub").write_text(proof.certificate)
        said = process.run(
            "ssh-keygen", "-Q", "-f", str(master.listed), str(tmp_path / "c.pub"), accept=(0, 1)
        )
        assert said.rstrip().endswith(("REVOKED", "ok"))
        return said.rstrip().endswith("REVOKED")

    golden, card, other = cluster.golden(WORKER), cluster.card("w1", WORKER), cluster.card("w2", WORKER)
    cluster.revoke(["w1", "golden/worker", "theirs"])
    assert is_revoked(golden)
    assert is_revoked(card)
    assert not is_revoked(other)
    assert not is_revoked(cluster.golden(WORKER))
    assert not is_revoked(cluster.card("w1", WORKER))


def test_bakes_at_once_make_one_authority_and_one_credential(home: cache.Home) -> None:
    said: list[str] = []

    def bake(number: int) -> tuple[str, Proof, Proof]:
        cluster = trust.open_cluster("home", home, said.append)
        return cluster.public_key, cluster.golden(WORKER), cluster.card(f"w{number}", WORKER)

    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(bake, range(8)))
    assert len({key for key, _, _ in done}) == 1
    assert len({golden for _, golden, _ in done}) == 1
    assert sum("made the signing key" in text for text in said) == 1
    issued = trust.open_cluster("home", home, print).issued()
    assert sorted(one.name for one in issued) == ["golden/worker", *(f"w{n}" for n in range(8))]
    assert len({one.serial for one in issued}) == 9


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Path]:
    socket = tmp_path / "agent"
    started = subprocess.Popen(["ssh-agent", "-D", "-a", str(socket)], stdout=subprocess.PIPE)
    assert started.stdout is not None
    started.stdout.readline()
    yield socket
    started.kill()
    started.wait()
    started.stdout.close()


def test_the_agent_signs_where_only_the_public_half_is_here(
    cluster: Cluster, agent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    private = cluster.folder / "authority"
    away = private.rename(tmp_path / "away")
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    with pytest.raises(UserError, match="is not there, and no agent signs in its place"):
        cluster.card("w1", WORKER)
    monkeypatch.setenv("SSH_AUTH_SOCK", str(agent))
    with pytest.raises(UserError, match="no agent signs"):
        cluster.card("w1", WORKER)
    process.run("ssh-add", "-q", str(away))
    assert certificate.read(cluster.card("w1", WORKER).certificate).authority == cluster.public_key
    assert [one.name for one in cluster.issued()] == ["w1"]


def test_a_passphrase_without_a_terminal_is_told(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    window = tmp_path / "askpass"
    window.write_text("#!/bin/sh\necho secret12\n")
    window.chmod(0o755)
    monkeypatch.setenv("DISPLAY", ":9")
    monkeypatch.setenv("SSH_ASKPASS", str(window))  # no desktop's window: often it is not installed
    private = cluster.folder / "authority"
    process.run("ssh-keygen", "-q", "-p", "-P", "", "-N", "secret12", "-f", str(private))
    program = (
        "import sys; from pathlib import Path; from bake import trust\n"
        "from firstboot.errors import UserError\n"
        "one = trust.Cluster('home', Path(sys.argv[1]), sys.argv[2], print)\n"
        "try: one.golden('k3s-worker')\n"
        "except UserError as error: print(error.message)\n"
    )
    said = process.run(
        sys.executable, "-c", program, str(cluster.folder), cluster.public_key, no_terminal=True, timeout=30
    )
    assert said == f"{private} has a passphrase, and it was not given\n"


def test_a_damaged_or_exchanged_key_is_told(cluster: Cluster, home: cache.Home) -> None:
    private = cluster.folder / "authority"
    text = private.read_text()
    private.write_text(text[:200])
    with pytest.raises(UserError, match="is damaged") as damaged:
        cluster.card("w1", WORKER)
    other = trust.open_cluster("other", home, lambda text: None)
    private.write_text((other.folder / "authority").read_text())
    with pytest.raises(UserError, match="are of two keys"):
        cluster.card("w1", WORKER)
    assert cluster.issued() == []
    assert text.splitlines()[1] not in f"{damaged.value.message} {damaged.value.hint}"
    private.write_text(text)
    cluster.card("w1", WORKER)


class Master:
    """As much of one as keeps a list."""

    def __init__(self, root: Path, cluster: Cluster) -> None:
        self.root = root
        self.listed = root / REVOKED.lstrip("/")
        self.listed.parent.mkdir(parents=True)
        self.listed.write_text("")
        (root / contract.AUTHORITY.lstrip("/")).write_text(cluster.public_key + "\n")


def test_the_lists_of_two_operators_make_one(cluster: Cluster, tmp_path: Path) -> None:
    master = Master(tmp_path / "master", cluster)
    cards = [cluster.card(name, WORKER) for name in ("w1", "w2", "w3")]
    serials = {one.name: one.serial for one in cluster.issued()}
    for name in ("w1", "w2"):
        revocations.add([f"serial: {serials[name]} # {name}"], str(master.root))
    said = []
    for number, card in enumerate(cards):
        (tmp_path / f"{number}.pub").write_text(card.certificate)
        query = ["ssh-keygen", "-Q", "-f", str(master.listed), str(tmp_path / f"{number}.pub")]
        said.append(process.run(*query, accept=(0, 1)).rstrip().endswith("REVOKED"))
    assert said == [True, True, False]
    assert master.listed.stat().st_mode & 0o777 == 0o644  # sshd reads it as another user


def test_a_list_that_cannot_be_made_leaves_the_old_one(cluster: Cluster, tmp_path: Path) -> None:
    master = Master(tmp_path / "master", cluster)
    revocations.add(["id: w1"], str(master.root))
    before = master.listed.read_bytes()
    with pytest.raises(WorkFailed, match="ssh-keygen"):
        revocations.add(["serial: nonsense"], str(master.root))
    assert master.listed.read_bytes() == before


def test_no_key_is_in_an_argument(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[tuple[str, ...]] = []
    real = process.run

    def watching(*command: str, **options: object) -> str:
        started.append(command)
        return real(*command, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(process, "run", watching)
    proofs = cluster.golden(WORKER), cluster.card("w1", WORKER), cluster.host()
    argued = " ".join(word for command in started for word in command)
    assert argued.count("ssh-keygen") == 6
    for proof in proofs:
        assert not any(line in argued for line in proof.key.splitlines() if line)


def test_a_machine_without_ssh_keygen_is_told(home: cache.Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UserError, match="ssh-keygen is not installed") as told:
        trust.open_cluster("home", home, print)
    assert "openssh-client" in told.value.hint
    assert not trust.exists("home", home)
