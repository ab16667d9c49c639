"""Labels and taints that would keep a kubelet from starting."""

import pytest
from raspbian import worker

from firstboot.errors import UserError

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("label", ["disk=ssd", "a=", "example.org/a=b", "topology.kubernetes.io/zone=x"])
def test_labels(label: str) -> None:
    assert worker(labels=(label,)).labels == (label,)


@pytest.mark.parametrize(
    "label", ["foo", "", "=", "a b=c", "a=b\n", "a=" + "x" * 64, "node-role.kubernetes.io/x=y", "k8s.io/a=b"]
)
def test_labels_that_no_node_starts_with(label: str) -> None:
    with pytest.raises(UserError, match="label|no node may") as caught:
        worker(labels=("disk=ssd", label))
    assert caught.value.hint


@pytest.mark.parametrize("taint", ["gpu=yes:NoSchedule", "a:NoExecute", "example.org/a=:PreferNoSchedule"])
def test_taints(taint: str) -> None:
    assert worker(taints=(taint,)).taints == (taint,)


@pytest.mark.parametrize("taint", ["gpu", "gpu=yes", "gpu:Never", ":NoSchedule", "a=b:NoSchedule\n", ""])
def test_no_taints(taint: str) -> None:
    with pytest.raises(UserError, match="not a taint"):
        worker(taints=(taint,))
