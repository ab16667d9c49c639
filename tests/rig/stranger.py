"""What answers on a master's port and is none, and who calls a master for no good. Standard library only."""

import os
import socket
import sys
import threading
import time
from pathlib import Path

PORT = 6422


def attend(connection: socket.socket, how: str, target: str) -> None:
    try:
        if how == "silent":
            time.sleep(3600)
        elif how == "garbage":
            connection.sendall(os.urandom(4096))
        elif how == "endless":
            piece = b"x" * 4000 + b"\r\n"
            for _ in range((1 << 30) // len(piece)):
                connection.sendall(piece)
        elif how == "relay":
            relay(connection, target)
    except OSError:
        pass
    finally:
        connection.close()


def relay(connection: socket.socket, target: str) -> None:
    with socket.create_connection((target, PORT), 10) as other:
        other.settimeout(None)
        back = threading.Thread(target=pass_on, args=(other, connection), daemon=True)
        back.start()
        pass_on(connection, other)
        back.join()


def pass_on(one: socket.socket, other: socket.socket) -> None:
    with Path("/tmp/passed").open("ab", buffering=0) as kept:
        while piece := one.recv(65536):
            kept.write(piece)
            other.sendall(piece)
    other.shutdown(socket.SHUT_WR)


def hold(target: str, count: int) -> None:
    """So many connections, none of which says anything; each anew as soon as it is ended."""

    def one() -> None:
        while True:
            try:
                with socket.create_connection((target, PORT), 10) as connection:
                    while connection.recv(4096):
                        pass
            except OSError:
                time.sleep(0.5)

    for _ in range(count):
        threading.Thread(target=one, daemon=True).start()
    time.sleep(3)
    sys.stdout.write("held\n")
    sys.stdout.flush()
    time.sleep(3600)


def main() -> None:
    how, _, rest = sys.argv[1].partition(":")
    if how == "hold":
        target, count = rest.split(":")
        hold(target, int(count))
    with socket.create_server(("", PORT)) as server:
        while True:
            connection = server.accept()[0]
            threading.Thread(target=attend, args=(connection, how, rest), daemon=True).start()


if __name__ == "__main__":
    main()
