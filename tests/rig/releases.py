"""A mirror of K3s's releases with TLS, on a test's network: asked for one, it leads on to another port."""

import hashlib
import http.server
import json
import ssl
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

_AT = "/k3s-io/k3s/releases/download/v1.34.9%2Bk3s1"
VERSION = "v1.34.9+k3s1"


class Mirror:
    """``authority``: who signs for it, as PEM. Made anew for each test; ends with ``close``."""

    def __init__(self, folder: Path, inside: Any, address: str, files: dict[str, bytes]) -> None:
        folder.mkdir()
        self.authority = folder / "authority.crt"
        self._asked = folder / "asked"
        self._asked.touch()
        self.url = f"https://{address}:8443"
        _sign(folder, address)
        self.files = folder / "files"
        self.files.mkdir()
        for name, body in files.items():
            (self.files / name).write_bytes(body)
        listed = "".join(f"{hashlib.sha256(body).hexdigest()}  {name}\n" for name, body in files.items())
        for processor in ("amd64", "arm", "arm64"):
            (self.files / f"sha256sum-{processor}.txt").write_text(listed)
        command = inside(sys.executable, __file__, folder, address)
        self._server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._server.stdout
        assert self._server.stdout.readline() == "up\n"

    def asked(self) -> list[list[Any]]:
        """Who asked for what: address, name, Range."""
        return [json.loads(line) for line in self._asked.read_text().splitlines()]

    def close(self) -> None:
        self._server.kill()
        self._server.wait()


def _sign(folder: Path, address: str) -> None:
    request = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
    ]
    request += ["-days", "30", "-subj", "/CN=a mirror of a test", "-addext", f"subjectAltName=IP:{address}"]
    request += ["-keyout", str(folder / "key.pem"), "-out", str(folder / "authority.crt")]
    subprocess.run(request, check=True, capture_output=True)


def _serve(folder: Path, address: str) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "authority.crt", folder / "key.pem")

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.rpartition("/")[2]
            file = folder / "files" / name
            if self.path.startswith(_AT):
                self.send_response(302)
                self.send_header("Location", f"https://{address}:8444/{name}")
                self.end_headers()
            elif not file.is_file():
                self.send_error(404)
            else:
                self._send(name, file.read_bytes())

        def _send(self, name: str, body: bytes) -> None:
            asked = self.headers.get("Range")
            start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
            self.send_response(206 if asked else 200)
            if asked:
                self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
            self.send_header("Content-Length", str(len(body) - start))
            self.end_headers()
            with (folder / "asked").open("a") as log:
                log.write(json.dumps([self.client_address[0], name, asked]) + "\n")
            self.wfile.write(body[start:])

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    for port in (8443, 8444):
        server = http.server.ThreadingHTTPServer((address, port), Handler)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=server.serve_forever).start()
    sys.stdout.write("up\n")
    sys.stdout.flush()


if __name__ == "__main__":
    _serve(Path(sys.argv[1]), sys.argv[2])
