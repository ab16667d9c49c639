#!/bin/sh
# The first boot's init, started by the kernel before systemd: grow the root partition to the end of the
# card, give the card a disk id of its own, take ourselves off the kernel's command line, reboot.
# Process 1 must never exit, so whatever fails, the way leads to the reboot.

grow_last_partition() {
    start=$(cat "$sys/start")
    end=$((start + $(cat "$sys/size")))
    [ "$end" -lt "$(cat "$sys/../size")" ] || return 0
    echo ', +' | sfdisk --quiet --no-reread --no-tell-kernel -N "$(cat "$sys/partition")" "$disk"
}

renew_disk_id() {
    old=$(sfdisk --disk-id "$disk") || return
    new=0x$(od -An -N4 -tx4 /dev/urandom | tr -d ' ')
    sfdisk --quiet --no-reread --no-tell-kernel --disk-id "$disk" "$new" || return
    sed -i "s/PARTUUID=${old#0x}-/PARTUUID=${new#0x}-/" /etc/fstab /boot/cmdline.txt
}

PATH=/usr/sbin:/usr/bin:/sbin:/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t tmpfs tmpfs /run
mount /boot
mount -o remount,rw /
sys=$(readlink -f "/sys/dev/block/$(mountpoint -d /)")
disk=/dev/$(basename "$(dirname "$sys")")

# Only this very word, as on Raspbian: had it been changed, the card would start here again for ever.
sed -i 's| init=/usr/lib/raspi-config/init_resize\.sh||; s/ quiet\>//' /boot/cmdline.txt
grow_last_partition && renew_disk_id || sleep 5

umount /boot
mount -o remount,ro "/dev/$(basename "$sys")" /  # by device: fstab already names the new disk id
sync
reboot -f
