"""The root helper of a master's join service: carries out what the forced command may ask for.

systemd holds its socket, which only the account of the join service reaches, and starts it when that is used.
Runs on the node: Python 3.7, standard library only.
"""

import json
import select
import socket
import sys
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Dict

from firstboot.answers import Answers
from firstboot.asker import asker_of
from firstboot.contract import MAX_ANSWER, is_label

IDLE = 300.0
"""Seconds without a request after which it ends, and gives its memory back."""

_AT_ONCE = 16
"""Requests that are worked on; the others wait in the socket's queue."""

_SECONDS = 10.0
"""For a request to come in, or an answer to go out."""

_SOCKET = 3  # SD_LISTEN_FDS_START of sd_listen_fds(3)


def main() -> int:
    """Until nobody has asked for IDLE seconds."""
    with socket.socket(fileno=_SOCKET) as listener:
        serve(listener, Answers(), IDLE)
    return 0


def serve(listener: socket.socket, answers: Answers, idle: float) -> None:
    """Each request in a thread; while all are busy nobody else is let in."""
    free = threading.BoundedSemaphore(_AT_ONCE)
    listener.setblocking(False)  # another may have taken what select saw
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        while True:
            free.acquire()
            if not select.select([listener], [], [], idle)[0]:
                return
            try:
                connection = listener.accept()[0]
            except OSError:
                free.release()
                continue
            pool.submit(_attend, connection, answers, free)


def _attend(connection: socket.socket, answers: Answers, free: threading.BoundedSemaphore) -> None:
    try:
        with connection:
            connection.settimeout(_SECONDS)
            connection.sendall(answered(_heard(connection), answers))
    except OSError:
        pass  # the asker has gone
    finally:
        free.release()


def answered(data: bytes, answers: Answers) -> bytes:
    """The answer to a request, and a line about it in the journal, with nothing secret or garbled in it."""
    verb, name = "?", "?"
    try:
        asked = json.loads(data.decode("utf-8"))
        asker, request = asker_of(asked), asked["request"]
        verb = str(asked["verb"])
        if not isinstance(request, dict):
            raise ValueError("no request")
        given = request.get("name", "")
        name = given if isinstance(given, str) and is_label(given) else "?"
        answer = answers.answer(verb, asker, request)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        answer = {"error": "bad-answer"}
    except Exception:  # noqa: BLE001 (a full disk, a bug: the next request may fare better)
        traceback.print_exc(limit=3)
        answer = {"error": "not-ready"}
    _log(verb, name, answer)
    return json.dumps(answer).encode() + b"\n"


def _log(verb: str, name: str, answer: Dict[str, Any]) -> None:
    known = verb if verb.replace("-", "").isalpha() and len(verb) < 20 else "?"
    sys.stdout.write(f"{known} {name}: {answer.get('error', 'done')}\n")
    sys.stdout.flush()


def _heard(connection: socket.socket) -> bytes:
    end, data = time.monotonic() + _SECONDS, b""
    while len(data) <= 2 * MAX_ANSWER and time.monotonic() < end:
        piece = connection.recv(65536)
        if not piece:
            return data
        data += piece
    return b""
