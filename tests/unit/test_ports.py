"""The cluster's ports in each firewall's own files, and what is said where there is no firewall."""

import pytest
from raspbian import Pi, master, worker
from test_firewall import NFTABLES, SAVED, UFW, UFW_PRISTINE, ZONE

from bake.concerns.ports import API, ETCD, FLANNEL, KUBELET, WIREGUARD, needed
from bake.firewall import Port
from bake.spec import Datastore, NodeSpec
from firstboot.edits import Write
from firstboot.errors import UserError

pytestmark = pytest.mark.unit


class TestNeeded:
    def test_by_role(self) -> None:
        assert needed(worker()) == (KUBELET, FLANNEL)
        assert needed(master()) == (API, KUBELET, FLANNEL)
        assert needed(master(datastore=Datastore.ETCD)) == (API, KUBELET, FLANNEL, ETCD)

    def test_a_master_that_joins_is_of_etcd(self) -> None:
        assert ETCD in needed(master(server="https://10.0.0.2:6443"))
        assert ETCD not in needed(worker(server="https://10.0.0.2:6443"))

    @pytest.mark.parametrize(
        ("backend", "ports"),
        [("vxlan", (FLANNEL,)), ("wireguard-native", (WIREGUARD,)), ("host-gw", ()), (["vxlan"], ())],
    )
    def test_flannel_s_backend(self, backend: object, ports: tuple[Port, ...]) -> None:
        assert needed(worker(config={"flannel-backend": backend})) == (KUBELET, *ports)

    def test_the_api_s_port(self) -> None:
        assert needed(master(config={"https-listen-port": 6444}))[0] == Port("tcp", 6444)
        assert needed(master(config={"https-listen-port": "443"}))[0] == Port("tcp", 443)

    @pytest.mark.parametrize("port", [0, 65536, -1, "https", True, "9" * 5000])
    def test_no_port_at_all(self, port: object) -> None:
        with pytest.raises(UserError, match="https-listen-port"):
            needed(master(config={"https-listen-port": port}))

    def test_flannel_is_on_8472_whatever_the_paper_prints(self) -> None:
        assert (FLANNEL.protocol, FLANNEL.first) == ("udp", 8472)


class TestConcern:
    def written(self, pi: Pi, spec: NodeSpec) -> dict[str, str]:
        edits = pi.wants("ports", spec)
        return {edit.path: edit.content.decode() for edit in edits if isinstance(edit, Write)}

    def test_no_firewall(self, pi: Pi) -> None:
        assert pi.wants("ports", worker()) == []
        assert pi.notes("ports", worker()) == ["no firewall: nothing to open"]

    def test_ufw_for_a_network_of_one_family(self, pi: Pi) -> None:
        pi.install(ufw="0.36-1")
        pi.write("/etc/ufw/user.rules", UFW)
        pi.write("/etc/ufw/user6.rules", UFW_PRISTINE)
        pi.write("/etc/ufw/ufw.conf", "ENABLED=yes\n")
        assert self.written(pi, worker(network="10.0.0.0/24")).keys() == {"/etc/ufw/user.rules"}
        assert self.written(pi, worker(network="2001:db8::/64")).keys() == {"/etc/ufw/user6.rules"}
        assert len(self.written(pi, worker())) == 2
        assert pi.notes("ports", worker()) == []

    def test_ufw_that_is_off(self, pi: Pi) -> None:
        pi.install(ufw="0.36-1")
        pi.write("/etc/ufw/user.rules", UFW)
        pi.write("/etc/ufw/user6.rules", UFW_PRISTINE)
        pi.write("/etc/ufw/ufw.conf", "# ENABLED=yes\nENABLED=no\n")
        assert len(self.written(pi, worker())) == 2
        assert "ufw is off" in pi.notes("ports", worker())[0]

    def test_a_firewall_s_file_is_missing(self, pi: Pi) -> None:
        pi.install(ufw="0.36-1")
        with pytest.raises(UserError, match=r"no /etc/ufw/user\.rules"):
            pi.wants("ports", worker())

    def test_firewalld_s_default_zone_from_its_stock(self, pi: Pi) -> None:
        pi.install(firewalld="0.6.3-5")
        pi.write("/etc/firewalld/firewalld.conf", "# DefaultZone=x\nDefaultZone=home\n")
        pi.write("/usr/lib/firewalld/zones/home.xml", ZONE)
        assert self.written(pi, worker()).keys() == {"/etc/firewalld/zones/home.xml"}
        pi.bake(worker())
        assert pi.wants("ports", worker()) == []
        assert pi.text("/usr/lib/firewalld/zones/home.xml") == ZONE

    def test_a_garbled_zone(self, pi: Pi) -> None:
        pi.install(firewalld="0.6.3-5")
        pi.write("/etc/firewalld/zones/public.xml", "<zone>")
        with pytest.raises(UserError, match=r"public\.xml is garbled"):
            pi.wants("ports", worker())

    def test_nftables_only_where_its_service_is_on(self, pi: Pi) -> None:
        pi.install(nftables="0.9.0-2")
        pi.write("/etc/nftables.conf", NFTABLES)
        assert pi.notes("ports", worker()) == ["no firewall: nothing to open"]
        pi.link(
            "/etc/systemd/system/sysinit.target.wants/nftables.service",
            "/lib/systemd/system/nftables.service",
        )
        assert self.written(pi, worker()).keys() == {"/etc/nftables.conf"}
        pi.write("/etc/nftables.conf", "flush ruleset\n")
        assert self.written(pi, worker()) == {}
        assert "nothing to open" in pi.notes("ports", worker())[0]

    def test_iptables_persistent_beside_another(self, pi: Pi) -> None:
        pi.install(**{"iptables-persistent": "1.0.11", "firewalld": "0.6.3-5"})
        pi.write("/etc/firewalld/zones/public.xml", ZONE)
        pi.write("/etc/iptables/rules.v4", SAVED)
        (pi.root / "etc/iptables/rules.v4").chmod(0o640)
        edits = {edit.path: edit for edit in pi.wants("ports", worker()) if isinstance(edit, Write)}
        assert edits.keys() == {"/etc/firewalld/zones/public.xml", "/etc/iptables/rules.v4"}
        assert edits["/etc/iptables/rules.v4"].mode == 0o640
        assert pi.notes("ports", worker()) == [
            "there is no /etc/iptables/rules.v6, so nothing is filtered: nothing to open"
        ]

    def test_all_of_them_and_nothing_is_left_to_do(self, pi: Pi) -> None:
        pi.install(**{"ufw": "1", "firewalld": "1", "nftables": "1", "iptables-persistent": "1"})
        files = {
            "/etc/ufw/user.rules": UFW,
            "/etc/ufw/user6.rules": UFW_PRISTINE,
            "/etc/firewalld/zones/public.xml": ZONE,
            "/etc/nftables.conf": NFTABLES,
            "/etc/iptables/rules.v4": SAVED,
            "/etc/iptables/rules.v6": SAVED,
        }
        for path, text in files.items():
            pi.write(path, text)
        pi.link("/etc/systemd/system/sysinit.target.wants/nftables.service", "/lib/x")
        done = pi.bake(master(datastore=Datastore.ETCD))
        assert {step.edit.path for step in done.steps if step.concern == "ports"} == files.keys()
        assert all("2379" in pi.text(path) for path in files)
        assert pi.wants("ports", master(datastore=Datastore.ETCD)) == []
        pi.bake(worker())
        assert {path for path in files if "2379" in pi.text(path)} == {"/etc/firewalld/zones/public.xml"}
