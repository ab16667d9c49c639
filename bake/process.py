"""Run the distribution's tools: the one place that starts processes and words their failures."""

import errno
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence

from firstboot.errors import UserError, WorkFailed

_PACKAGES = {
    "sfdisk": "fdisk",
    "blkid": "util-linux",
    "debugfs": "e2fsprogs",
    "dumpe2fs": "e2fsprogs",
    "e2fsck": "e2fsprogs",
    "resize2fs": "e2fsprogs",
    "fsck.fat": "dosfstools",
    "mcopy": "mtools",
    "mdel": "mtools",
    "mdir": "mtools",
    "mmd": "mtools",
    "mshowfat": "mtools",
    "mtype": "mtools",
    "ssh-keygen": "openssh-client",
    "qemu-system-x86_64": "qemu-system-x86",
    "depmod": "kmod",
    "setpriv": "util-linux",
    "apt-config": "apt",
    "apt-get": "apt",
}
"""Debian's package for each tool, for the hint when it is missing."""

_VERSION = re.compile(r"(debugfs|dumpe2fs|e2fsck|fsck\.fat) \d")


Background = subprocess.Popen[bytes]


def require(*tools: str) -> None:
    """UserError that names all of the tools that are missing, before any work is done."""
    missing = [tool for tool in tools if not shutil.which(tool, path=_env()["PATH"])]
    if missing:
        packages = sorted({_PACKAGES.get(tool, tool) for tool in missing})
        be = "is" if len(missing) == 1 else "are"
        raise UserError(f"{', '.join(missing)} {be} not installed", f"sudo apt install {' '.join(packages)}")


def run(
    *command: str,
    stdin: str = "",
    accept: Sequence[int] = (0,),
    timeout: float | None = None,
    keep_open: Sequence[int] = (),
    env: Mapping[str, str] | None = None,
    no_terminal: bool = False,
) -> str:
    """Standard output of a tool, as text.

    Messages come in English whatever the locale; /sbin is looked into, which an ordinary user's PATH lacks.
    ``keep_open`` are open files that the tool finds under ``/proc/self/fd``; ``env`` adds variables;
    ``no_terminal`` is for a tool that would ask its questions there.
    Raises UserError where the tool is missing, WorkFailed with its last words where its exit code is not
    among those accepted, subprocess.TimeoutExpired after ``timeout`` seconds.
    """
    try:
        done = subprocess.run(
            command,
            input=stdin,
            capture_output=True,
            text=True,
            errors="replace",
            env=_env(env),
            timeout=timeout,
            pass_fds=keep_open,
            start_new_session=no_terminal,
        )
    except FileNotFoundError as error:
        raise _missing(command[0]) from error
    if done.returncode not in accept:
        # Checkers complain on standard output, and print their version as an error.
        words = [
            line
            for line in (done.stdout + done.stderr).splitlines()
            if line.strip() and not _VERSION.match(line)
        ]
        shown = "; ".join(words[-3:]) or f"exit code {done.returncode}"
        full = os.strerror(errno.ENOSPC) in shown
        raise WorkFailed(f"{command[0]} failed: {shown}", "Make room on that disk." if full else "")
    return done.stdout


def answer(*command: str, stdin: bytes, keep_open: Sequence[int] = ()) -> tuple[bytes, str]:
    """What a tool says on standard output, and on standard error: for tools whose exit code means nothing.

    ``keep_open`` are open files that the tool finds under ``/proc/self/fd``. UserError where it is missing.
    """
    try:
        done = subprocess.run(command, input=stdin, capture_output=True, env=_env(), pass_fds=keep_open)
    except FileNotFoundError as error:
        raise _missing(command[0]) from error
    return done.stdout, done.stderr.decode("utf-8", "replace")


def stream(
    *command: str,
    chunk: int = 1 << 20,
    env: Mapping[str, str] | None = None,
    keep_open: Sequence[int] = (),
) -> Iterator[bytes]:
    """Standard output of a tool as it comes, in pieces; a caller that has seen enough just stops.

    The exit code is not looked at: for tools whose exit code means nothing. UserError where it is missing.
    """
    try:
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=_env(env),
            pass_fds=keep_open,
        )
    except FileNotFoundError as error:
        raise _missing(command[0]) from error
    with process:
        try:
            while process.stdout and (piece := process.stdout.read(chunk)):
                yield piece
        finally:
            process.kill()


def start(*command: str, console: int, keep_open: Sequence[int] = ()) -> Background:
    """A tool in the background, to be killed by the caller; call require() first.

    ``console`` is its standard input, output and error; ``keep_open`` stay open in it, by the same numbers.
    Ctrl-C in the terminal does not reach it. The kernel kills it when the thread that called this ends,
    however that comes: nothing is left running.
    """
    return subprocess.Popen(
        ["setpriv", "--pdeathsig", "KILL", *command],
        stdin=console,
        stdout=console,
        stderr=subprocess.STDOUT,
        env=_env(),
        pass_fds=keep_open,
        start_new_session=True,
    )


def attached(*command: str) -> Background:
    """A tool that runs beside us and may ask its questions at the terminal: sudo. The caller waits for it.

    Ctrl-C does not end it. UserError where it is missing.
    """
    try:
        return subprocess.Popen(command, env=_env(), process_group=None)
    except FileNotFoundError as error:
        raise _missing(command[0]) from error


def _env(more: Mapping[str, str] | None = None) -> dict[str, str]:
    path = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"
    return {**os.environ, "LC_ALL": "C.UTF-8", "LANGUAGE": "", "PATH": path, **(more or {})}


def _missing(tool: str) -> UserError:
    return UserError(f"{tool} is not installed", f"sudo apt install {_PACKAGES.get(tool, tool)}")
