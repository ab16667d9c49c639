"""Whether KVM really works here, found out by using it.

A /dev/kvm that exists proves little: on some nested machines a launch fails at once ('failed to set MSR'), on
others the appliance never gets past its kernel. So a boot sector of five bytes is run under KVM and has to
answer in time. What came out is remembered: a yes until this machine is started again.
"""

import functools
import os
import platform
import shutil
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from bake.cache import home
from bake.process import run
from firstboot.errors import UserError, WorkFailed

_SECTOR = b"\xb0\x10\xe6\xf4\xf4".ljust(510, b"\0") + b"\x55\xaa"  # mov al,16; out 0xf4,al; hlt
_ANSWER = 33  # QEMU's isa-debug-exit leaves with (16 << 1) | 1
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_RETRIED = 3600
"""Seconds after which a no is asked again: this machine may only have been busy."""
_YES, _NO = "works", "does not work"
_LIMIT = 0.4
"""Seconds. 0.05 where KVM works, 0.06 emulated, 1.4 on a nested host where the appliance then hung."""


@functools.cache
def works() -> bool:
    """True where a guest ran to its end under KVM. A machine so loaded that it did not is emulated: slower,
    never wrong."""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return False
    if platform.machine() != "x86_64":
        return False  # the boot sector is x86's; what cannot be tried is not relied on
    note = home().cache / "kvm" / _BOOT.read_text().strip()
    with suppress(OSError):
        if note.read_text() == _YES or time.time() - note.stat().st_mtime < _RETRIED:
            return note.read_text() == _YES
    answer = _try()
    with suppress(OSError):  # a cache that cannot be written to costs time only
        shutil.rmtree(note.parent, ignore_errors=True)  # of earlier starts
        note.parent.mkdir(parents=True)
        note.write_text(_YES if answer else _NO)
    return answer


def _try() -> bool:
    with tempfile.NamedTemporaryFile(prefix="k3s-bake-kvm-") as sector:
        Path(sector.name).write_bytes(_SECTOR)
        machine = ["qemu-system-x86_64", "-accel", "kvm", "-m", "16", "-nodefaults", "-display", "none"]
        answer = ["-no-reboot", "-device", "isa-debug-exit,iobase=0xf4,iosize=1"]
        drive = ["-drive", f"if=ide,format=raw,snapshot=on,file={sector.name}"]
        try:
            run(*machine, *answer, *drive, accept=(_ANSWER,), timeout=_LIMIT)
        except (UserError, WorkFailed, subprocess.TimeoutExpired):
            return False
    return True
