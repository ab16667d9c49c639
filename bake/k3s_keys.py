"""The keys of K3s's config.yaml that need more than passing through."""

AGENT_KEYS = frozenset(
    """
    airgap-extra-registry alsologtostderr bind-address container-runtime-endpoint data-dir debug
    default-runtime disable-apiserver-lb disable-default-registry-endpoint docker enable-pprof
    flannel-cni-conf flannel-conf flannel-iface image-credential-provider-bin-dir
    image-credential-provider-config image-service-endpoint kube-proxy-arg kubelet-arg lb-server-port
    log node-external-dns node-external-ip node-internal-dns node-ip node-label node-name node-taint
    nonroot-devices pause-image prefer-bundled-bin private-registry protect-kernel-defaults resolv-conf
    rootless selinux server snapshotter token-file v vmodule vpn-auth-file with-node-id
    """.split()  # noqa: SIM905 (a list of forty strings is harder to read)
)
"""The keys of config.yaml that an agent takes; it refuses all others (k3s agent --help)."""

MANAGED_KEYS = {
    "server": "server in [cluster]",
    "token-file": "token_file in [cluster]",
    "agent-token-file": "the agents' token that each master of ours makes when it first starts",
    "cluster-init": "datastore = 'etcd'",
    "node-name": "the node's name",
    "node-label": "the node's labels",
    "node-taint": "the node's taints",
    "container-runtime-endpoint": "containerd",
    "data-dir": "the default, for which container images and containerd's folders are placed",
}
"""Keys that the plan settles itself, and what to use in their place."""

SECRET_KEYS = {
    "token": "token_file",
    "agent-token": "the agents' token that K3s makes when it first starts",
    "datastore-endpoint": "datastore in [cluster], and datastore_password_file",
    "vpn-auth": "vpn-auth-file",
    "etcd-s3-access-key": "etcd-s3-config-secret",
    "etcd-s3-secret-key": "etcd-s3-config-secret",
    "etcd-s3-session-token": "etcd-s3-config-secret",
}
"""Keys that hold a secret, and the form that keeps it in a file."""
