"""A master whose datastore is elsewhere, baked: the password is in one private file, and nowhere else."""

from pathlib import Path

import pytest

from guest.baked import bake
from guest.conftest import Run

pytestmark = pytest.mark.guest


def test_a_master_of_a_file_with_a_datastore(cli: Run, base: Path, k3s: list[str], tmp_path: Path) -> None:
    (tmp_path / "password").write_text("p@ss:w/rd%\n")
    (tmp_path / "password").chmod(0o600)
    (tmp_path / "cluster.toml").write_text(
        "[cluster]\nname = 'home'\ndatastore = 'mysql://k3s@tcp(10.0.0.9:3306)/k3s'\n"
        "datastore_password_file = 'password'\n[[node]]\nrole = 'master'\nname = 'm1'\n"
    )
    words = ("--file", str(tmp_path / "cluster.toml"), "--name", "m1", "--engine", "e2fs", "--no-credential")
    made = bake(cli, base, tmp_path / "m1.img", *words, *k3s, "--airgap", "none")
    path = "/etc/rancher/k3s/config.yaml.d/k3s-bake-datastore.yaml"
    assert made.image.stat(path) == ("regular", 0o600, 0, 0)
    endpoint = "mysql://k3s:p@ss:w/rd%@tcp(10.0.0.9:3306)/k3s"
    assert f'datastore-endpoint: "{endpoint}"' in made.image.text(path)
    assert "datastore-endpoint" not in made.image.text("/etc/rancher/k3s/config.yaml")
    assert made.path.stat().st_mode & 0o777 == 0o600
    beside = [one for one in tmp_path.glob("m1.img.*") if one.is_file()]
    told = "".join(one.read_text(errors="replace") for one in beside)
    assert "mysql://k3s@tcp" in told
    assert "p@ss" not in told + made.image.text("/etc/k3s-bake/node.json")
