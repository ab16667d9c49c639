"""libguestfs's appliance: starting it, and wording what it says. guestfs's only door."""

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bake import kvm
from firstboot.errors import UserError, WorkFailed
from firstboot.tree import in_the_way


def launched(image: Path, say: Callable[[str], None], readonly: bool) -> Any:
    """A running appliance with the image as its first disk, to be closed by the caller.

    With KVM where it works, else by emulation, which is said. UserError where what it needs is missing.
    """
    try:
        import guestfs
    except ImportError as error:
        raise UserError(
            "the libguestfs binding for Python is missing",
            "sudo apt install python3-guestfs, and a virtual environment of /usr/bin/python3 with "
            "--system-site-packages: 'make setup' does both",
        ) from error
    if not kvm.works():
        say("no working KVM: libguestfs emulates, which is some ten seconds slower")
    else:
        with contextlib.suppress(RuntimeError):
            return _launch(guestfs, image, readonly, emulate=False)
        say("libguestfs failed with KVM: trying again with emulation")
    try:
        return _launch(guestfs, image, readonly, emulate=True)
    except RuntimeError as error:
        raise _launch_error(error) from error


def _launch(guestfs: Any, image: Path, readonly: bool, emulate: bool) -> Any:
    guest = guestfs.GuestFS(python_return_dict=True)
    try:
        guest.set_backend("direct")
        if emulate:
            guest.set_backend_setting("force_tcg", "1")
        # The image is a draft until it is published, and flushed then: no need to wait for the disk before.
        guest.add_drive_opts(str(image), format="raw", readonly=readonly, cachemode="unsafe")
        # QEMU's default is to stop the machine when this machine's disk is full, for ever.
        guest.config("-set", "drive.hd0.werror=report")
        guest.set_smp(min(2, os.cpu_count() or 1))  # a second shorter under emulation; more is no better
        guest.launch()
    except BaseException:
        guest.close()
        raise
    return guest


def _launch_error(error: RuntimeError) -> UserError:
    words = str(error)
    if "supermin" in words:
        return UserError(
            "libguestfs found no kernel for its appliance",
            "sudo apt install linux-image-$(dpkg --print-architecture); on Ubuntu also: "
            "sudo chmod +r /boot/vmlinuz-*",
        )
    return UserError(f"libguestfs does not start: {words.splitlines()[0]}", "libguestfs-test-tool says more.")


def says(error: RuntimeError, *codes: int) -> bool:
    """The binding raises RuntimeError for everything; the appliance words errno in the C locale."""
    return str(error).endswith(tuple(os.strerror(code) for code in codes))


@contextlib.contextmanager
def worded(what: str) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if says(error, errno.ENOSPC):
            raise UserError(
                f"{what}: no room left in the image", "Use a base with more free room."
            ) from error
        if says(error, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ELOOP):
            raise in_the_way(what) from error
        raise WorkFailed(f"{what}: {str(error).splitlines()[0]}") from error
