"""Where things lie on a node: a module of its own, which is there at once. See firstboot.contract, too.

Runs on the node too: Python 3.7, standard library only.
"""

AGENT = "/usr/lib/k3s-bake/firstboot.pyz"
UNIT = "k3s-bake.service"
CONFIG = "/etc/k3s-bake/agent.json"
STATE = "/var/lib/k3s-bake/state.json"

# What a card brings along, on its FAT partition: see bake.concerns.first_boot.
CREDENTIAL = "k3s-bake/credential"
CREDENTIAL_BYTES = 8192
STATUS = "k3s-bake-status.txt"
STATUS_BYTES = 2048

# Where the agent moves it to, and what proves a master.
JOIN_KEY = "/etc/k3s-bake/join_key"
JOIN_CERTIFICATE = "/etc/k3s-bake/join_key-cert.pub"
KNOWN_HOSTS = "/etc/k3s-bake/known_hosts"
HOST_KEY = "/etc/k3s-bake/host_key"
HOST_CERTIFICATE = "/etc/k3s-bake/host_key-cert.pub"
NAME = "/etc/k3s-bake/name"
"""The name that a card's credential brought along."""

# K3s's own files, as far as a node's agent writes them.
K3S_CONFIG = "/etc/rancher/k3s/config.yaml"
K3S_TOKEN = "/etc/rancher/k3s/token"  # noqa: S105 (a path, as the next)
K3S_AGENT_TOKEN = "/etc/rancher/k3s/agent-token"  # noqa: S105
K3S_DATASTORE = "/etc/rancher/k3s/config.yaml.d/k3s-bake-datastore.yaml"
K3S_PASSWORD = "/etc/rancher/node/password"  # noqa: S105
