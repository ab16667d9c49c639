"""The entry in kubectl's configuration: all else stays, nothing that runs comes in."""

import pytest
import yaml

from firstboot.errors import UserError, WorkFailed
from k3s_bake import kubeconfig
from k3s_bake.kubeconfig import Entry

pytestmark = pytest.mark.unit

SERVER = "https://10.0.0.2:6443"
OF_K3S = """
apiVersion: v1
clusters:
- cluster:
    certificate-authority-data: Q0E=
    server: https://127.0.0.1:6443
  name: default
contexts:
- context: {cluster: default, user: default}
  name: default
current-context: default
kind: Config
preferences: {}
users:
- name: default
  user:
    client-certificate-data: Q0VSVA==
    client-key-data: S0VZ
"""
OTHER = """
apiVersion: v1
kind: Config
current-context: work
clusters:
- name: work
  cluster:
    server: https://work.example:6443
    insecure-skip-tls-verify: true
    extensions:
    - name: minikube.sigs.k8s.io
      extension: {last-update: 2021-05-06T07:08:09Z, version: 1.20, at: 12:30:45, port: 0o17, on: yes}
users:
- name: work
  user:
    token: "12345"
    exec: {command: aws, args: [eks, get-token], env: null}
contexts:
- name: work
  context: {cluster: work, user: work, namespace: ünï}
unknown-key: [1, 2]
"""


@pytest.fixture
def entry() -> Entry:
    return kubeconfig.entry_of(OF_K3S, SERVER, "k3s-bake-home", "SHA256:a")


def test_a_new_file_is_a_whole_one(entry: Entry) -> None:
    made = yaml.safe_load(kubeconfig.merged("", entry))
    assert (made["apiVersion"], made["kind"], made["current-context"]) == ("v1", "Config", "k3s-bake-home")
    (cluster,), (user,), (context,) = made["clusters"], made["users"], made["contexts"]
    assert cluster["name"] == user["name"] == context["name"] == "k3s-bake-home"
    assert cluster["cluster"]["server"] == SERVER
    assert cluster["cluster"]["certificate-authority-data"] == "Q0E="
    assert (user["user"]["client-certificate-data"], user["user"]["client-key-data"]) == ("Q0VSVA==", "S0VZ")
    assert (context["context"]["cluster"], context["context"]["user"]) == ("k3s-bake-home",) * 2
    assert "&" not in kubeconfig.alone(entry)  # no alias: not every reader knows them
    assert kubeconfig.alone(entry) == kubeconfig.merged("", entry)


def test_all_else_stays_as_it_was(entry: Entry) -> None:
    text = kubeconfig.merged(OTHER, entry)
    made, before = yaml.safe_load(text), yaml.safe_load(OTHER)
    assert made["current-context"] == "work"
    for kind in ("clusters", "users", "contexts"):
        assert [one["name"] for one in made[kind]] == ["work", "k3s-bake-home"]
        made[kind].pop()
    assert made == before
    # Not only their values: other readers of YAML see dates and numbers elsewhere.
    for plain in ("2021-05-06T07:08:09Z", "version: 1.20", "at: 12:30:45", "0o17", ": yes", "'12345'", "ünï"):
        assert plain in text


def test_twice_is_once_and_a_later_one_replaces_it_where_it_stands(entry: Entry) -> None:
    once = kubeconfig.merged(OTHER, entry)
    assert kubeconfig.merged(once, entry) == once
    moved = kubeconfig.entry_of(
        OF_K3S.replace("S0VZ", "TkVX"), "https://10.0.0.9:6443", entry.name, "SHA256:a"
    )
    last = yaml.safe_load(kubeconfig.merged(once, moved))
    assert [one["name"] for one in last["clusters"]] == ["work", "k3s-bake-home"]
    assert last["clusters"][1]["cluster"]["server"] == "https://10.0.0.9:6443"
    assert last["users"][1]["user"]["client-key-data"] == "TkVX"


@pytest.mark.parametrize("kind", ["clusters", "users", "contexts"])
def test_an_entry_of_another_is_not_replaced(entry: Entry, kind: str) -> None:
    theirs = yaml.safe_dump({kind: [{"name": "k3s-bake-home", kind[:-1]: {"x": "y"}}]})
    with pytest.raises(
        UserError, match=rf"'k3s-bake-home' that is not of this cluster \({kind}\)"
    ) as refused:
        kubeconfig.merged(theirs, entry)
    assert "--output" in refused.value.hint


def test_a_cluster_of_the_same_name_and_another_authority_is_another(entry: Entry) -> None:
    other = kubeconfig.entry_of(OF_K3S, SERVER, entry.name, "SHA256:b")
    with pytest.raises(UserError, match="not of this cluster"):
        kubeconfig.merged(kubeconfig.merged("", entry), other)


@pytest.mark.parametrize(
    "text",
    [
        "clusters: {a: b}\n",
        "clusters: [a]\n",
        "- a\n",
        "text",
        "a: [",
        "\x01",
        "[" * 5000,
        "!!python/object:x.y {}",
    ],
)
def test_a_garbled_file_is_told(entry: Entry, text: str) -> None:
    with pytest.raises(UserError, match="the kubeconfig") as refused:
        kubeconfig.merged(text, entry)
    assert refused.value.exit_code == 2


@pytest.mark.parametrize(
    "text", ["", "# nothing\n", "clusters:\nusers: null\ncontexts: []\ncurrent-context: ''\n"]
)
def test_an_empty_file_is_filled(entry: Entry, text: str) -> None:
    made = yaml.safe_load(kubeconfig.merged(text, entry))
    assert [one["name"] for one in made["contexts"]] == ["k3s-bake-home"]
    assert made["current-context"] == "k3s-bake-home"


def test_nothing_that_runs_comes_from_a_master() -> None:
    hostile = OF_K3S + "    exec: {command: /bin/evil, apiVersion: client.authentication.k8s.io/v1}\n"
    hostile = hostile.replace("    server:", "    proxy-url: http://evil\n    server:")
    text = kubeconfig.alone(kubeconfig.entry_of(hostile, SERVER, "k3s-bake-home", "SHA256:a"))
    assert "evil" not in text
    assert "S0VZ" in text


@pytest.mark.parametrize(
    ("text", "server"),
    [
        ("", SERVER),
        ("a: [", SERVER),
        ("clusters: []\nusers: []\n", SERVER),
        (OF_K3S.replace("certificate-authority-data", "certificate-authority"), SERVER),
        (
            OF_K3S.replace("client-certificate-data: Q0VSVA==", "exec: {command: x}").replace(
                "client-key-data", "y"
            ),
            SERVER,
        ),
        (OF_K3S.replace("S0VZ", "[S0VZ]"), SERVER),
        (OF_K3S.replace("users:", "users: 5\nother:"), SERVER),
        (OF_K3S, "http://10.0.0.2:6443"),
        (OF_K3S, "https://10.0.0.2:6443\nexec: x"),
        (OF_K3S, "https://evil.example:6443"),
        (OF_K3S, ""),
    ],
)
def test_what_no_master_of_ours_says_is_refused(text: str, server: str) -> None:
    with pytest.raises(WorkFailed, match="makes no sense") as refused:
        kubeconfig.entry_of(text, server, "k3s-bake-home", "SHA256:a")
    assert "S0VZ" not in str(refused.value)


def test_no_secret_in_what_is_shown(entry: Entry) -> None:
    assert "S0VZ" not in repr(entry)
