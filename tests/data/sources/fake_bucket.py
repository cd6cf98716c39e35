"""A bucket of Google Cloud Storage on this machine, which has the files of a folder: enough of its protocol to be read.

    python fake_bucket.py FOLDER CERTIFICATE KEY      prints its port

array_record's client finds it by CLOUD_STORAGE_EMULATOR_ENDPOINT. tensorflow's always asks www.googleapis.com, by TLS: it
takes this server for its proxy (https_proxy), which answers in Google's place, with a certificate that CURL_CA_BUNDLE makes
it trust.
"""

import http.server
import json
import ssl
import sys
import urllib.parse
from pathlib import Path
from typing import Any

DATE = "2026-01-01T00:00:00.000Z"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    folder: Path
    certificate: list[str]

    def do_CONNECT(self) -> None:
        self.send_response(200)
        self.end_headers()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.certificate)
        try:
            tunnel = context.wrap_socket(self.connection, server_side=True)
            type(self)(tunnel, self.client_address, self.server)
        except OSError:
            pass  # the client has gone
        self.close_connection = True

    def do_GET(self) -> None:
        url = urllib.parse.urlparse(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        parts = [urllib.parse.unquote(part) for part in url.path.split("/") if part]
        if parts[:3] != ["storage", "v1", "b"]:
            self._data("/".join(parts[1:]))
        elif len(parts) == 4:
            self._json({"name": parts[3], "location": "EU"})
        elif len(parts) == 5:
            self._list(query.get("prefix", ""), query.get("delimiter"), int(query.get("maxResults", 1000)))
        elif query.get("alt") == "media":
            self._data(parts[5])
        elif (self.folder / parts[5]).is_file():
            size = (self.folder / parts[5]).stat().st_size
            self._json({"name": parts[5], "size": str(size), "generation": "1", "updated": DATE})
        else:
            self._reply(404, b"{}")

    def _list(self, prefix: str, delimiter: str | None, most: int) -> None:
        names = sorted(str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if path.is_file())
        items, prefixes = [], set()
        for name in names:
            inner, found, _ = name[len(prefix) :].partition(delimiter) if delimiter else (name, "", "")
            if name.startswith(prefix) and found:
                prefixes.add(f"{prefix}{inner}{delimiter}")
            elif name.startswith(prefix):
                items.append({"name": name, "updated": DATE})
        self._json({"items": items[:most], "prefixes": sorted(prefixes)[: max(0, most - len(items))]})

    def _data(self, name: str) -> None:
        if not (self.folder / name).is_file():
            return self._reply(404, b"{}")
        data = (self.folder / name).read_bytes()
        first, last = 0, len(data) - 1
        if wanted := self.headers.get("Range"):
            start, _, stop = wanted.removeprefix("bytes=").partition("-")
            first = int(start) if start else max(0, len(data) - int(stop))
            last = min(int(stop), last) if start and stop else last
            if first > last:
                return self._reply(416, b"")
        part = data[first : last + 1]
        return self._reply(206 if wanted else 200, part, {"Content-Range": f"bytes {first}-{last}/{len(data)}"})

    def _json(self, answer: Any) -> None:
        self._reply(200, json.dumps(answer).encode())

    def _reply(self, status: int, data: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass


if __name__ == "__main__":
    Handler.folder, Handler.certificate = Path(sys.argv[1]), sys.argv[2:]
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(server.server_port, flush=True)
    server.serve_forever()
