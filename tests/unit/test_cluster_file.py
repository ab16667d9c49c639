import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from raspbian import Pi

from bake.cluster_checks import read_public_keys, read_secret
from bake.cluster_file import ClusterFile, ClusterFileError, load, parse, parts_for, values_for
from bake.spec import Datastore, File, K3s, NodeSpec, Role, StaticAddress, Wifi
from firstboot.edits import Write
from firstboot.errors import UserError

pytestmark = pytest.mark.unit

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIExample pi@bench"
TOKEN = b"K10" + b"a" * 64 + b"::node:hunter2"
K3S = K3s(File("k3s", "0" * 64, 1))

WHOLE = f"""
[cluster]
name = "home"
k3s = "v1.34.9+k3s1"
k3s_version = "v1.34.9+k3s1"
base = "my.img"
airgap = "none"
datastore = "sqlite"
registries = "registries.yaml"
network = "10.0.0.0/24"
containerd = ["containerd.deb"]
timezone = "Europe/Berlin"
user = "pi"
jump = "pi@gateway"
authorized_keys = ["id.pub", "{KEY}"]
server = "https://10.0.0.2:6443"
token_file = "token"
wifi = {{ country = "DE", ssid = "den", psk_file = "psk" }}

[k3s.config]
write-kubeconfig-mode = "0644"
kubelet-arg = ["max-pods=20"]
debug = true
[k3s.env]
HTTPS_PROXY = "http://10.0.0.9:3128"

[[node]]
name = "pi-1"
role = "master"
host = "10.0.0.2"
jump = "gateway:2222,pi@[fe80::1]:22"
address = "10.0.0.2/24"
gateway = "10.0.0.1"
dns = ["10.0.0.1", "9.9.9.9"]
interface = "wlan0"

[[node]]
name = "pi-2"
role = "worker"
user = "ann"
timezone = "Etc/UTC"
labels = {{ disk = "ssd", "example.org/room" = "" }}
taints = ["gpu=yes:NoSchedule", "slow:NoExecute"]
k3s.config = {{ debug = false }}
k3s.env = {{ HTTPS_PROXY = "", LANG = "C" }}

[[node]]
name = "pi-3"
role = "worker"
labels = ["disk=hdd"]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "registries.yaml").write_text("mirrors: {}\n")
    (tmp_path / "my.img").touch()
    (tmp_path / "containerd.deb").touch()
    (tmp_path / "id.pub").write_text(f"# mine\n\n{KEY}-2\n")
    for name, content in (("token", TOKEN + b"\n"), ("psk", b"hunter2 hunter2\r\n")):
        (tmp_path / name).write_bytes(content)
        (tmp_path / name).chmod(0o600)
    return tmp_path


def loaded(folder: Path, content: str | bytes) -> ClusterFile:
    path = folder / "cluster.toml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return load(path)


def problems(folder: Path, content: str | bytes) -> tuple[str, ...]:
    with pytest.raises(ClusterFileError) as caught:
        loaded(folder, content)
    return caught.value.problems


def test_a_file_with_everything(folder: Path) -> None:
    file = loaded(folder, WHOLE)
    assert (file.name, file.k3s, file.airgap, file.datastore) == (
        "home", "v1.34.9+k3s1", "none", Datastore.SQLITE,
    )  # fmt: skip
    assert file.base == str(folder / "my.img")
    assert file.containerd == (folder / "containerd.deb",)
    assert file.authorized_keys == (f"{KEY}-2", KEY)
    assert [(node.name, node.role, node.host) for node in file.nodes] == [
        ("pi-1", Role.MASTER, "10.0.0.2"),
        ("pi-2", Role.WORKER, None),
        ("pi-3", Role.WORKER, None),
    ]


def test_a_master_s_values_make_a_node(folder: Path) -> None:
    spec = NodeSpec(k3s=K3S, **values_for(loaded(folder, WHOLE), Role.MASTER, None))
    assert (spec.name, spec.cluster, spec.network, spec.timezone) == (
        "pi-1", "home", "10.0.0.0/24", "Europe/Berlin",
    )  # fmt: skip
    assert spec.address == StaticAddress("10.0.0.2/24", "10.0.0.1", ("10.0.0.1", "9.9.9.9"), "wlan0")
    assert spec.wifi == Wifi("DE", "den", "hunter2 hunter2")
    assert (spec.server, spec.token) == (None, None)
    assert spec.registries == b"mirrors: {}\n"
    assert spec.config == {"write-kubeconfig-mode": "0644", "kubelet-arg": ["max-pods=20"], "debug": True}


def test_a_worker_s_own_values_win_and_server_keys_stay_away(folder: Path, pi: Pi) -> None:
    spec = NodeSpec(k3s=K3S, **values_for(loaded(folder, WHOLE), None, "pi-2"))
    assert spec.role is Role.WORKER
    assert spec.config["debug"] is False
    wanted = (edit for edit in pi.wants("k3s", spec) if edit.path == "/etc/rancher/k3s/config.yaml")
    assert all(b"write-kubeconfig-mode" not in edit.content for edit in wanted if isinstance(edit, Write))
    assert spec.env == {"HTTPS_PROXY": "", "LANG": "C"}
    assert spec.labels == ("disk=ssd", "example.org/room=")
    assert spec.taints == ("gpu=yes:NoSchedule", "slow:NoExecute")
    assert (spec.user, spec.timezone) == ("ann", "Etc/UTC")
    assert (spec.server, spec.token) == ("https://10.0.0.2:6443", TOKEN)


def test_several_nodes_of_a_role_share_an_image(folder: Path) -> None:
    values = values_for(loaded(folder, WHOLE), Role.WORKER, None)
    assert "name" not in values
    assert "labels" not in values
    assert values["cluster"] == "home"


def test_a_name_beside_those_in_the_file_is_a_slip(folder: Path) -> None:
    with pytest.raises(UserError, match="has no node pi-22") as caught:
        values_for(loaded(folder, WHOLE), Role.WORKER, "pi-22")
    assert caught.value.hint == "did you mean pi-2?"


def test_a_name_where_the_file_names_no_node_gets_what_is_shared(folder: Path) -> None:
    file = loaded(folder, "[cluster]\nuser = 'ann'\n[[node]]\nrole = 'worker'")
    values = values_for(file, Role.WORKER, "pi-9")
    assert (values["name"], values["user"]) == ("pi-9", "ann")


def test_without_a_file_only_the_flags_count() -> None:
    assert values_for(None, Role.WORKER, "pi-1") == {"role": Role.WORKER, "name": "pi-1"}


def test_the_parts_of_an_image(folder: Path) -> None:
    assert parts_for(None) == {}
    assert parts_for(loaded(folder, WHOLE)) == {
        "base": str(folder / "my.img"),
        "k3s": "v1.34.9+k3s1",
        "k3s_version": "v1.34.9+k3s1",
        "airgap": "none",
        "containerd": (folder / "containerd.deb",),
    }


def test_a_name_of_another_role_is_refused(folder: Path) -> None:
    with pytest.raises(UserError, match="pi-1 is a master in the cluster file, not a worker"):
        values_for(loaded(folder, WHOLE), Role.WORKER, "pi-1")


def test_a_role_must_be_known(folder: Path) -> None:
    with pytest.raises(UserError, match="master or a worker"):
        values_for(loaded(folder, WHOLE), None, None)


def test_etcd_is_a_matter_of_masters(folder: Path) -> None:
    file = loaded(folder, '[cluster]\ndatastore = "etcd"')
    assert NodeSpec(k3s=K3S, **values_for(file, Role.MASTER, None)).datastore is Datastore.ETCD
    assert NodeSpec(k3s=K3S, **values_for(file, Role.WORKER, None)).datastore is Datastore.SQLITE


def test_an_empty_file_is_fine(folder: Path) -> None:
    assert loaded(folder, "") == ClusterFile()


def test_all_mistakes_at_once(folder: Path) -> None:
    content = """
    [cluster]
    name = "../x"
    datastor = "etcd"
    [[node]]
    name = "pi-1"
    [[node]]
    name = "pi-1"
    role = "slave"
    address = "10.0.0.300/24"
    gateway = "10.0.0.1"
    [k3s.config]
    token = "hunter2"
    """
    with pytest.raises(ClusterFileError) as caught:
        loaded(folder, content)
    error = caught.value
    assert (error.message, error.exit_code) == ("cluster.toml: 8 mistakes", 2)
    assert error.hint == "node[1] is the first [[node]]"
    assert sorted(problem.split(":")[0] for problem in error.problems) == [
        "cluster.datastor", "cluster.name", "k3s.config.token", "node[1].name", "node[1].role",
        "node[2].address", "node[2].name", "node[2].role",
    ]  # fmt: skip
    assert "node[2].role: 'slave' is neither master nor worker" in error.problems
    assert "cluster.datastor: unknown key; did you mean datastore?" in error.problems


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("a = 1", "a: unknown key; known: cluster, node, k3s"),
        ("cluster = 3", "cluster: is a number, not a table"),
        ("node = {}", "node: is a table, not a list: write [[node]]"),
        ("node = [7]", "node[1]: is a number, not a table"),
        ("[[node]]", "node[1].role: is missing"),
        ("[cluster]\nname = true", "cluster.name: is true or false, not text: write it in quotes"),
        ("[cluster]\nname = 1979-05-27", "cluster.name: is a date or time, not text: write it in quotes"),
        ("[cluster]\nname = ''", "cluster.name: is empty"),
        (
            '[cluster]\nname = "a\\nb"',
            "cluster.name: holds a line end or another character that cannot be seen",
        ),
        (
            "[cluster]\nk3s-version = 'v1.34.9+k3s1'",
            "cluster.k3s-version: unknown key; did you mean k3s_version?",
        ),
        ("[cluster]\nk3s_version = '1.34'", "cluster.k3s_version: '1.34' is not a K3s version"),
        ("[cluster]\ndatastore = 'mysql'", "cluster.datastore: 'mysql' is neither sqlite nor etcd"),
        ("[cluster]\nnetwork = '10.0.0.1/24'", "cluster.network: '10.0.0.1/24' is not a network"),
        ("[cluster]\nbase = './none.img'", "cluster.base: "),
        (
            "[cluster]\ncontainerd = 'a.deb'",
            'cluster.containerd: is text, not a list: write ["containerd.deb"]',
        ),
        ("[cluster]\ncontainerd = ['a.deb']", "cluster.containerd[1]: "),
        ("[cluster]\nuser = 'Root!'", "cluster.user: 'Root!' is not a user's name"),
        ("[cluster]\nserver = '10.0.0.2'", "cluster.server: '10.0.0.2' is not a master's URL"),
        (
            "[cluster]\ntimezone = '../etc'",
            "cluster.timezone: '../etc' is not a time zone, like Europe/Berlin",
        ),
        ("[cluster]\nauthorized_keys = ['my.img']", "cluster.authorized_keys[1]: "),
        (
            "[cluster]\nwifi = { country = 'de', ssid = 'x', psk_file = 'psk' }",
            "cluster.wifi: 'de' is not a Wi-Fi country",
        ),
        ("[cluster]\nwifi = { ssid = 'x' }", "cluster.wifi.psk_file: is missing"),
        ("[[node]]\nrole='worker'\nlabels=['a b=c']", "node[1].labels[1]: 'a b=c' is not a Kubernetes label"),
        (
            "[[node]]\nrole='worker'\nlabels={a=1}",
            "node[1].labels.a: is a number, not text: write it in quotes",
        ),
        (
            "[[node]]\nrole='worker'\nlabels={'node-role.kubernetes.io/worker'='true'}",
            "node[1].labels.'node-role.kubernetes.io/worker': no node may give itself ",
        ),
        ("[[node]]\nrole='worker'\ntaints=['a=b:Never']", "node[1].taints[1]: 'a=b:Never' is not a taint"),
        (
            "[[node]]\nrole='worker'\naddress='10.0.0.2'\ngateway='10.0.0.1'",
            "node[1].address: '10.0.0.2' is not an IPv4 address with its prefix",
        ),
        ("[[node]]\nrole='worker'\naddress='10.0.0.2/24'", "node[1].gateway: is missing"),
        ("[[node]]\nrole='worker'\ngateway='10.0.0.1'", "node[1].gateway: goes with an address"),
        (
            "[[node]]\nrole='worker'\naddress='10.0.0.2/24'\ngateway='10.1.0.1'",
            "node[1].address: the gateway 10.1.0.1 is not in 10.0.0.0/24",
        ),
        ("[[node]]\nrole='worker'\nhost='pi@10.0.0.2'", "node[1].host: 'pi@10.0.0.2' is not a host's name"),
        (
            "[[node]]\nrole='worker'\nk3s.config={cluster-cidr='10.42.0.0/16'}",
            "node[1].k3s.config.cluster-cidr: a worker's K3s does not take this key",
        ),
        (
            "[k3s.config]\nnode-label=['a=b']",
            "k3s.config.node-label: k3s-bake settles this itself: use the node's",
        ),
        (
            "[k3s.config]\ndata-dir='/srv'",
            "k3s.config.data-dir: k3s-bake settles this itself: use the default",
        ),
        (
            "[k3s.config]\nagent-token-file='/a'",
            "k3s.config.agent-token-file: k3s-bake settles this itself: use the agents'",
        ),
        (
            "[k3s.env]\nK3S_DATA_DIR='/srv'",
            "k3s.env.K3S_DATA_DIR: k3s-bake settles this itself: use the default",
        ),
        (
            "[k3s.env]\nA='a\\nb'".replace("'a", '"a').replace("b'", 'b"'),
            "k3s.env.A: the value of A is not one line",
        ),
        ("[k3s.config]\nkubelet_arg=[]", "k3s.config.kubelet_arg: is not a K3s key"),
        ("[k3s.config]\ndebug=2020-01-01", "k3s.config.debug: K3s takes text, numbers"),
        ("[k3s.config]\nv=inf", "k3s.config.v: K3s takes text, numbers"),
        ("[k3s.config]\nkubelet-arg=[['a']]", "k3s.config.kubelet-arg: K3s takes text, numbers"),
        ("[k3s.env]\nA=1", "k3s.env.A: is a number, not text"),
        ("[k3s.env]\n'A B'='1'", "k3s.env.'A B': 'A B' is not a variable's name"),
        ("[k3s.env]\nK3S_URL='https://a:1'", "k3s.env.K3S_URL: k3s-bake settles this itself: use --server"),
        (
            "[k3s.env]\nK3S_NODE_NAME='a'",
            "k3s.env.K3S_NODE_NAME: k3s-bake settles this itself: use the node's name",
        ),
        (
            "[[node]]\nrole='master'\n[[node]]\nrole='master'",
            "cluster.datastore: 2 masters cannot share sqlite",
        ),
        ("a = \n", "is not TOML: Invalid value (at line 1"),
        ("a = " + "9" * 5000, "is not TOML: "),
        ("a = " + "[" * 5000, "is not TOML: "),
        (b"a = 1\nb = '\xff'", "line 2: is not UTF-8"),
    ],
)
def test_each_mistake_is_named(folder: Path, content: str | bytes, problem: str) -> None:
    found = problems(folder, content)
    assert any(line.startswith(problem) for line in found), found
    assert all("\n" not in line for line in found)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ClusterFileError) as caught:
        load(tmp_path / "cluster.toml")
    assert caught.value.message == "cluster.toml: 1 mistake"
    assert caught.value.problems == ("cannot be read: No such file or directory",)


def test_two_nodes_never_have_one_name_or_address(folder: Path) -> None:
    node = "[[node]]\nrole='worker'\nname='pi'\nhost='h'\naddress='10.0.0.2/24'\ngateway='10.0.0.1'\n"
    found = problems(folder, node + node)
    assert [line.split(":")[0] for line in found] == [
        "node[1].name", "node[2].name", "node[1].address", "node[2].address", "node[1].host", "node[2].host",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "content",
    [
        "token = 'hunter2'",
        "[cluster]\ntoken = 'hunter2'",
        "[cluster]\npassword = 'hunter2'",
        "[cluster]\ntoken_file = 'hunter2'",
        "[cluster]\nwifi = 'hunter2'",
        "[cluster]\nwifi = { country = 'DE', ssid = 'a', psk = 'hunter2' }",
        "[cluster]\nwifi = { country = 'DE', ssid = 'a', psk_file = 'hunter2' }",
        "[[node]]\nrole = 'worker'\npassword = ['hunter2']",
        "[k3s.config]\nagent-token = 'hunter2'",
        "[k3s.config]\ndatastore-endpoint = 'hunter2'",
        "[k3s.config]\nmy-password = 'hunter2'",
        "[k3s.env]\nK3S_TOKEN = 'hunter2'",
        "[k3s.env]\nK3S_DATASTORE_ENDPOINT = 'hunter2'",
        "[k3s.env]\nAWS_SECRET_ACCESS_KEY = 'hunter2'",
        "[cluster]\ntoken = hunter2",
    ],
)
def test_secrets_are_refused_and_never_repeated(folder: Path, content: str) -> None:
    found = problems(folder, content)
    assert found
    assert not any("hunter2" in line for line in found)


def test_the_name_of_a_secret_is_not_a_secret(folder: Path) -> None:
    file = loaded(folder, "[k3s.config]\netcd-s3-config-secret = 'backup'\nvpn-auth-file = '/etc/vpn'")
    assert file.config["etcd-s3-config-secret"] == "backup"


def test_secrets_do_not_show(folder: Path) -> None:
    assert "hunter2" not in repr(loaded(folder, WHOLE))


@pytest.mark.parametrize("name", ["token", "psk"])
def test_a_secret_that_others_may_read_is_refused(folder: Path, name: str) -> None:
    (folder / name).chmod(0o640)
    found = problems(folder, WHOLE)
    assert len(found) == 1
    assert found[0].endswith(f"others may read {folder / name} (chmod 600 {folder / name})")


def test_a_token_that_names_no_authority_is_refused(folder: Path) -> None:
    (folder / "token").write_bytes(b"hunter2")
    assert "K10 form" in problems(folder, WHOLE)[0]


def test_read_secret_drops_the_line_end_only(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_bytes(b" a b \n")
    path.chmod(0o600)
    assert read_secret(path) == b" a b "


def test_read_secret_refuses_what_holds_none(tmp_path: Path) -> None:
    (tmp_path / "empty").touch(0o600)
    with pytest.raises(UserError, match="is empty"):
        read_secret(tmp_path / "empty")
    for other in (tmp_path, tmp_path / "none", tmp_path / ("x" * 300)):
        with pytest.raises(UserError, match="no such file"):
            read_secret(other)


def test_a_private_key_is_not_taken_for_a_public_one(tmp_path: Path) -> None:
    path = tmp_path / "id"
    path.write_text("-----BEGIN OPENSSH PRIVATE KEY-----\nhunter2\n")
    with pytest.raises(UserError, match="does not hold SSH public keys") as caught:
        read_public_keys(path)
    assert "hunter2" not in caught.value.message


KEYS = st.sampled_from([
    "cluster", "node", "k3s", "config", "env", "name", "role", "labels", "taints", "address", "gateway",
    "dns", "interface", "wifi", "ssid", "psk_file", "token", "token_file", "authorized_keys", "containerd",
    "datastore", "registries", "base", "k3s_version", "network", "K3S_URL", "kubelet-arg",
])  # fmt: skip
LEAVES = (
    st.text(max_size=8)
    | st.integers()
    | st.floats()
    | st.booleans()
    | st.datetimes()
    | st.sampled_from(["master", "worker", "10.0.0.2/24", "10.0.0.1", "a=b", "~", "~nobody-here", "/", KEY])
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(KEYS | st.text(max_size=5), inner, max_size=4)
    ),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.dictionaries(KEYS, VALUES, max_size=4))
def test_any_data_is_a_cluster_or_a_list_of_mistakes(tmp_path: Path, data: dict[str, Any]) -> None:
    try:
        parse(data, tmp_path / "cluster.toml")
    except ClusterFileError as error:
        assert error.problems
        assert all("\n" not in line for line in error.problems)


def test_a_path_may_start_at_home(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "HOME", str(folder))
    assert loaded(folder, "[cluster]\nauthorized_keys = ['~/id.pub']").authorized_keys == (f"{KEY}-2",)


def test_of_several_masters_one_starts_the_cluster(tmp_path: Path) -> None:
    masters = [{"role": "master", "name": f"m{number}"} for number in (1, 2, 3)]
    data = {"cluster": {"datastore": "etcd", "master": "10.0.0.2"}, "node": masters}
    with pytest.raises(ClusterFileError) as caught:
        parse(data, tmp_path / "cluster.toml")
    assert caught.value.problems == ("node: of 3 masters all but one need: join = true",)
    for node in masters[1:]:
        node["join"] = True  # type: ignore[assignment]
    found = parse(data, tmp_path / "cluster.toml")
    assert [node.join for node in found.nodes] == [None, True, True]
    assert found.master == "10.0.0.2"
    masters[1]["join"] = "yes"
    data["cluster"] = {"datastore": "etcd", "master": "pi.local"}
    with pytest.raises(ClusterFileError) as caught:
        parse(data, tmp_path / "cluster.toml")
    assert len(caught.value.problems) >= 2


def test_a_file_that_is_not_there_is_not_looked_up_in_the_docs(tmp_path: Path) -> None:
    with pytest.raises(ClusterFileError) as caught:
        load(tmp_path / "none.toml")
    assert caught.value.hint == "check the path, and who may read it"
