"""What makes a Python on a node answer requests: a command line that says nothing of them, and a program."""

import functools
import json
import shlex
import zlib
from pathlib import Path

from firstboot import carried
from firstboot.errors import UserError, WorkFailed

READY = carried.READY
_SOURCES = Path(carried.__file__).parent
_NOT_NEEDED = {"__main__", "agent", "carried", "confined", "helper", "mdns", "serve", "voice", "watcher"}


def command() -> str:
    """For the login's shell."""
    return shlex.join(["python3", "-I", "-S", "-c", carried.START])


@functools.cache
def program() -> bytes:
    """What follows on its standard input: see firstboot.carried."""
    modules = {
        f"firstboot.{path.stem}" if path.stem != "__init__" else "firstboot": path.read_text(encoding="utf-8")
        for path in sorted(_SOURCES.glob("*.py"))
        if path.stem not in _NOT_NEEDED
    }
    modules["firstboot"] = modules.get("firstboot", "")
    sources = zlib.compress(json.dumps(modules).encode(), 9)
    loader = (_SOURCES / "carried.py").read_bytes()
    return b"%d\n%s%d\n%s" % (len(loader), loader, len(sources), sources)


def trouble(user: str, why: str) -> UserError:
    """Why it has not started, by what was complained of."""
    if "command not found" in why or "No such file" in why:
        return UserError("it has no python3", "sudo apt install python3")
    if "try again" in why or "incorrect password" in why:
        return UserError(f"the sudo password of {user} is wrong")
    if "sudoers" in why or "not allowed" in why:
        return UserError(f"{user} may not use sudo there", "Log in as another user, or as root.")
    return WorkFailed(f"Python does not start there: {why.strip()[-200:] or 'it says nothing'}")
