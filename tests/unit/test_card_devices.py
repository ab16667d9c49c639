"""What may be written: recorded shapes of machines, and trees by chance."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bake.card.devices import Device, Judged, Verdict, judge, parse, with_backing, without_boot_areas
from firstboot.errors import WorkFailed

pytestmark = pytest.mark.unit

GB = 10**9
Row = dict[str, Any]


def disk(name: str, size: int, *children: Row, **values: Any) -> Row:
    return {
        "name": name,
        "type": "disk",
        "size": size,
        "maj:min": f"8:{len(name)}",
        "children": children,
        **values,
    }


def part(name: str, *children: Row, mount: str | None = None, **values: Any) -> Row:
    row = {
        "name": name,
        "type": "part",
        "size": GB,
        "maj:min": f"9:{hash(name) % 999}",
        "mountpoints": [mount],
    }
    return {**row, "children": children, **values}


def lvm(name: str, mount: str) -> Row:
    return {"name": name, "type": "lvm", "mountpoints": [mount]}


def md0(mount: str | None = None) -> Row:
    return {"name": "md0", "type": "raid1", "mountpoints": [mount]}


def judged(*rows: Row, mounted: tuple[str, ...] = ()) -> dict[str, Judged]:
    found = without_boot_areas(judge(parse(json.dumps({"blockdevices": rows})), mounted))
    return {one.device.name: one for one in found}


CARD = disk("sdb", 32 * GB, part("sdb1", fstype="vfat"), part("sdb2", fstype="ext4"), tran="usb", rm=True)
READER = disk("mmcblk0", 32 * GB, part("mmcblk0p1", fstype="vfat"))  # a laptop's own: rm and hotplug are 0

MACHINES: dict[str, tuple[Row, ...]] = {
    "a laptop, ext4 on NVMe": (
        disk(
            "nvme0n1",
            512 * GB,
            part("nvme0n1p1", mount="/boot/efi"),
            part("nvme0n1p2", mount="/"),
            tran="nvme",
        ),
    ),
    "LUKS and LVM": (
        disk(
            "nvme0n1",
            512 * GB,
            part(
                "nvme0n1p3",
                {
                    "name": "luks",
                    "type": "crypt",
                    "children": [{"name": "vg-root", "type": "lvm", "mountpoints": ["/"]}],
                },
                fstype="crypto_LUKS",
            ),
        ),
    ),
    "swap alone": (disk("sda", 64 * GB, part("sda1", mount="[SWAP]"), rm=True, tran="usb"),),
    "a RAID of two": (
        disk("sda", 64 * GB, part("sda1", md0("/")), rm=True),
        disk("sdc", 64 * GB, part("sdc1", md0("/")), rm=True),
    ),
    "a stopped RAID's array": (disk("sda", 64 * GB, part("sda1", md0()), rm=True),),
    "ZFS as root, which lsblk shows no mount of": (
        disk("sda", 64 * GB, part("sda1", fstype="zfs_member"), rm=True, tran="usb"),
    ),
    "the second disk of a btrfs": (
        disk("sda", 64 * GB, part("sda1", mount="/", fstype="btrfs", uuid="1-2"), rm=True),
        disk("sdc", 64 * GB, part("sdc1", fstype="btrfs", uuid="1-2"), rm=True, tran="usb"),
    ),
    "a Pi that runs from its card": (
        disk("mmcblk0", 32 * GB, part("mmcblk0p1", mount="/boot"), part("mmcblk0p2", mount="/"), tran="mmc"),
    ),
    "a system that runs from a stick": (
        disk("sda", 16 * GB, part("sda1", mount="/run/live"), tran="usb", rm=True),
    ),
    "a disk with a file system and no partitions": (disk("sda", 16 * GB, mountpoints=["/srv"], tran="usb"),),
    "an empty reader": (disk("sdd", 0, tran="usb", rm=True),),
    "a card with its switch at lock": (disk("sdd", 32 * GB, tran="usb", rm=True, ro=True),),
    "a DVD drive": ({"name": "sr0", "type": "rom", "size": GB, "rm": True},),
    "swap in memory": (disk("zram0", GB),),
}


@pytest.mark.parametrize("machine", MACHINES)
def test_what_a_system_stands_on_or_uses_is_refused(machine: str) -> None:
    found = judged(*MACHINES[machine], CARD)
    assert found.pop("sdb").verdict is Verdict.CARD
    for one in found.values():
        assert one.verdict is Verdict.REFUSED, one
        assert one.reasons


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (disk("sda", 500 * GB, part("sda1", fstype="ext4"), tran="sata"), "it is large for a card: 500 GB"),
        (disk("sda", 120 * GB, tran="sata"), "it is built in (sata)"),
        (disk("sda", 64 * GB, part("sda1", fstype="ntfs"), tran="usb"), "sda1 is of Windows"),
        (disk("sda", 64 * GB, part("sda1", fstype="LVM2_member"), tran="usb"), "sda1 belongs to LVM"),
        (disk("sda", 64 * GB, fstype="crypto_LUKS", rm=True), "sda belongs to an encrypted disk (LUKS)"),
    ],
)
def test_what_is_likely_no_card_is_doubtful(row: Row, reason: str) -> None:
    (found,) = judged(row).values()
    assert (found.verdict, found.reasons[0]) == (Verdict.DOUBTFUL, reason)


def test_cards() -> None:
    assert judged(CARD)["sdb"].verdict is Verdict.CARD
    assert judged(READER)["mmcblk0"].verdict is Verdict.CARD
    loop = {"name": "loop3", "type": "loop", "size": 500 * GB}
    assert judged(loop)["loop3"].verdict is Verdict.CARD
    assert judged({**loop, "mountpoints": ["/snap/core"]})["loop3"].verdict is Verdict.REFUSED
    assert judged({**loop, "size": 0})["loop3"].reasons == ("no file is behind it",)


def test_soldered_memory_is_no_card() -> None:
    found = judged(READER, disk("mmcblk0boot0", GB), disk("mmcblk0boot1", GB), disk("mmcblk0rpmb", GB))
    assert found.keys() == {"mmcblk0"}
    assert found["mmcblk0"].verdict is Verdict.DOUBTFUL


def test_what_only_the_kernel_knows_to_be_mounted_is_refused() -> None:
    """In another mount namespace, say: lsblk shows nothing then."""
    row = disk("sdb", 32 * GB, part("sdb1", **{"maj:min": "8:17"}), tran="usb", rm=True)
    assert judged(row)["sdb"].verdict is Verdict.CARD
    assert judged(row, mounted=("8:17",))["sdb"].reasons == ("sdb1 is in use",)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"blockdevices": [{}]}', '{"blockdevices": 7}'])
def test_what_lsblk_does_not_say(text: str) -> None:
    with pytest.raises(WorkFailed, match="lsblk"):
        parse(text)


KINDS = ("disk", "part", "lvm", "crypt", "raid1", "loop", "rom", "mpath")
SIGNS = ("", "ext4", "vfat", "btrfs", "zfs_member", "LVM2_member", "crypto_LUKS", "ntfs")


def trees(depth: int = 3) -> st.SearchStrategy[Device]:
    children = st.lists(trees(depth - 1), max_size=3).map(tuple) if depth else st.just(())
    return st.builds(
        Device,
        name=st.sampled_from(("sda", "sdb", "mmcblk0", "nvme0n1", "loop0", "dm-0", "zram0", "sda1")),
        path=st.just("/dev/x"),
        kind=st.sampled_from(KINDS),
        size=st.integers(0, 10**13),
        number=st.integers(0, 9).map(lambda minor: f"8:{minor}"),
        transport=st.sampled_from(("", "usb", "mmc", "sata", "nvme")),
        removable=st.booleans(),
        read_only=st.booleans(),
        mounts=st.lists(st.sampled_from(("/", "/boot", "[SWAP]", "/mnt")), max_size=2).map(tuple),
        holds=st.sampled_from(SIGNS),
        uuid=st.sampled_from(("", "1", "2")),
        children=children,
    )


@given(st.lists(trees(), max_size=4), st.sets(st.integers(0, 9).map(lambda minor: f"8:{minor}"), max_size=2))
def test_nothing_in_use_is_ever_offered(tops: list[Device], mounted: set[str]) -> None:
    used = {
        one.uuid for top in tops for one in top.all() if one.uuid and (one.mounts or one.number in mounted)
    }
    found = judge(tops, mounted)
    assert [one.device for one in found] == tops
    for one in found:
        assert bool(one.reasons) == (one.verdict is not Verdict.CARD)
        if one.verdict is Verdict.REFUSED:
            continue
        assert one.device.kind in ("disk", "loop")
        assert one.device.size > 0
        assert not one.device.read_only
        for node in one.device.all():
            assert not node.mounts
            assert node.number not in mounted
            assert node.uuid not in used
            assert node.holds != "zfs_member"


def test_loop_devices_by_what_they_stand_for() -> None:
    """O_EXCL does not tell that what is behind one is in use."""
    rows = [{"name": f"loop{at}", "type": "loop", "size": GB, "maj:min": f"7:{at}"} for at in range(5)]
    rows[1]["mountpoints"] = ["/mnt"]
    found = judge(parse(json.dumps({"blockdevices": rows})), ())
    backing = {"7:0": "8:1", "7:1": "99/7", "7:2": "99/7", "7:3": "99/8", "7:4": "99/9"}
    judged_now = {one.device.name: one for one in with_backing(found, backing, ["99/9"])}
    assert judged_now["loop0"].reasons == ("it stands for a device, not for a file",)
    assert judged_now["loop2"].reasons == judged_now["loop4"].reasons == ("the file behind it is in use",)
    assert judged_now["loop3"].verdict is Verdict.CARD
