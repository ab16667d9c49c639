"""The one part of k3s-bake that runs with more rights: opens cards, and hands the open files over.

    sudo python3 -I opener.py SOCKET DEVICE...

Whoever listens at SOCKET gets one message a device: an error number, 0 with the open file. When the other end
closes the connection the kernel is asked to read the partition tables. Standard library only.
"""

import contextlib
import errno
import fcntl
import os
import signal
import socket
import stat
import sys

_BLKRRPART = 0x125F  # linux/fs.h
FLAGS = os.O_RDWR | os.O_EXCL | os.O_DIRECT | os.O_CLOEXEC
"""O_EXCL: of a block device, not while it is mounted, or anybody else has claimed it so."""


def main(place: str, paths: list[str]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it ends when the other does
    handles: list[int] = []
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as other:
        other.connect(place)
        for path in paths:
            hand_over(other, path, handles)
        other.recv(1)
    for handle in handles:
        with contextlib.suppress(OSError):  # somebody looks at it: plugged in again it is seen
            fcntl.ioctl(handle, _BLKRRPART)


def hand_over(other: socket.socket, path: str, handles: list[int]) -> None:
    try:
        handle = os.open(path, FLAGS)
        handles.append(handle)
        if not stat.S_ISBLK(os.fstat(handle).st_mode):
            raise OSError(errno.ENOTBLK, "no block device")
    except OSError as error:
        other.send(str(error.errno).encode())
    else:
        socket.send_fds(other, [b"0"], [handle])


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
