"""Whom a person names, and what is sent there."""

import asyncio
import contextlib
import dataclasses
import importlib
import importlib.util
import json
import shlex
import sys
import threading
import zlib

import pytest

from firstboot import addresses, carried, contract, edits, snapshot
from firstboot.errors import UserError
from k3s_bake import carry
from k3s_bake.login import Login, asked, behind, hops

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("text", "login"),
    [
        ("pi@10.0.0.3", Login("10.0.0.3", "pi")),
        ("10.0.0.3", Login("10.0.0.3")),
        ("pi@pi.local:2222", Login("pi.local", "pi", 2222)),
        ("pi@[fe80::1]:22", Login("fe80::1", "pi", 22)),
        ("fe80::1", Login("fe80::1")),
    ],
)
def test_logins(text: str, login: Login) -> None:
    assert Login.parse(text) == login


@pytest.mark.parametrize(
    "text",
    [
        "",
        "pi@",
        "@host",
        "a b",
        "pi@-oProxyCommand=x",
        "h:0",
        "h:70000",
        "h:x",
        "h\x1b",
        "a@b@c",
        "h,i",
        "ssh://h",
        "u:p@h",
    ],
)
def test_what_is_no_login(text: str) -> None:
    with pytest.raises(UserError, match="no node to log in to"):
        Login.parse(text)


def test_what_a_person_types_to_log_in() -> None:
    assert Login.parse("pi@h:2222").command == "ssh -p 2222 pi@h"
    assert str(Login.parse("pi@[fe80::1]:22")) == "pi@[fe80::1]:22"


def test_what_is_sent_is_all_that_the_nodes_end_imports() -> None:
    stream = carry.program()
    size, _, rest = stream.partition(b"\n")
    loader, rest = rest[: int(size)], rest[int(size) :]
    size, _, rest = rest.partition(b"\n")
    sources = json.loads(zlib.decompress(rest))
    assert len(rest) == int(size)
    assert b"class Carried" in loader
    assert "firstboot.remote" in sources
    finder = carried.Carried(sources)
    assert finder.is_package("firstboot")
    for name, source in sources.items():
        compile(source, name, "exec")
        for line in source.splitlines():
            if line.startswith("from firstboot."):
                assert line.split()[1] in sources, f"{name}: {line}"


def test_what_is_not_used_there_is_not_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    sources = {"far": "", "far.used": "from far import unused\nword = 'used'", "far.unused": "no Python"}
    monkeypatch.setattr(sys, "meta_path", [carried.Carried(sources), *sys.meta_path])
    try:
        used = importlib.import_module("far.used")
        assert used.word == "used"
        with pytest.raises(SyntaxError):
            _ = used.unused.word
    finally:
        for name in sources:
            sys.modules.pop(name, None)


def test_what_dataclasses_need_for_one_without_a_docstring_is_not_loaded_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, "inspect")
    spec = carried.Carried({}).find_spec("inspect")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert "signature" not in object.__getattribute__(module, "__dict__")
    assert module.signature
    for there in (addresses, contract, edits, snapshot):
        for name, made in vars(there).items():
            if dataclasses.is_dataclass(made):
                assert not (made.__doc__ or "").startswith(f"{name}("), f"{name} has no docstring"


def test_a_shell_takes_the_command_line_as_it_is_meant() -> None:
    assert shlex.split(carry.command()) == ["python3", "-I", "-S", "-c", carried.START]
    compile(carried.START, "-c", "exec")


@pytest.mark.parametrize(
    ("why", "told"),
    [
        ("bash: python3: command not found", "it has no python3"),
        ("Sorry, try again.", "the sudo password of pi is wrong"),
        ("pi is not in the sudoers file.", "pi may not use sudo there"),
        ("Segmentation fault", "Segmentation fault"),
        ("", "it says nothing"),
    ],
)
def test_why_python_does_not_start(why: str, told: str) -> None:
    assert told in carry.trouble("pi", why).message


def test_a_question_is_answered_or_fails_for_who_has_asked() -> None:
    assert asyncio.run(asked(lambda what: f"{what}!", "who")) == "who!"
    with pytest.raises(ZeroDivisionError):
        asyncio.run(asked(lambda: 1 // 0))


def test_nobody_waits_for_a_question_that_is_open() -> None:
    never = threading.Event()

    async def interrupted() -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asked(never.wait), 0.05)

    asyncio.run(interrupted())
    assert not never.is_set()
    never.set()


def test_through_whom() -> None:
    gate, inner = Login("gate", "pi", 2222), Login("10.0.0.1")
    assert behind("pi@h", "pi@gate:2222,10.0.0.1") == Login("h", "pi", None, (gate, inner))
    assert behind("pi@h", "pi@gate:2222,10.0.0.1").command == "ssh -J pi@gate:2222,10.0.0.1 pi@h"
    assert behind("pi@h", None).jump is None
    assert behind("pi@h", "none").jump == ()
    assert str(behind("pi@h", "gate")) == "pi@h"
    for wrong in ("", "gate,", "ssh://gate", "a b"):
        with pytest.raises(UserError, match="no node to log in to"):
            hops(wrong)
