"""A bucket of Google Cloud Storage on this machine that can be written: objects in memory, enough of the JSON protocol.

    python writable_bucket.py CERTIFICATE KEY      prints its port

tensorflow's client (epath) finds it as tests/data/sources/fake_bucket.py says, tensorstore's by TENSORSTORE_GCS_HTTP_URL.
"""

import http.server
import itertools
import sys
import threading
import urllib.parse
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "data" / "sources"))

from fake_bucket import DATE, Handler

OBJECTS: dict[str, tuple[int, bytes]] = {}  # name -> (generation, data)
UPLOADS: dict[str, str] = {}  # of a session -> the name of what it uploads
NUMBERS, LOCK = itertools.count(1), threading.Lock()


class Writable(Handler):
    def do_GET(self) -> None:  # noqa: N802
        parts, query = self._asked()
        if parts[:3] != ["storage", "v1", "b"]:
            self._data("/".join(parts[1:]))
        elif len(parts) == 4:
            self._json({"name": parts[3], "location": "EU"})
        elif len(parts) == 5:
            self._listing(query)
        elif query.get("alt") == "media":
            self._data(parts[5])
        elif parts[5] in OBJECTS:
            self._json(metadata(parts[5]))
        else:
            self._reply(404, b"{}")

    def do_POST(self) -> None:  # noqa: N802
        parts, query = self._asked()
        body = self._body()
        if parts[0] == "upload" and query["uploadType"] == "resumable":
            session = str(next(NUMBERS))
            UPLOADS[session] = query["name"]
            self._reply(200, b"", {"Location": f"https://www.googleapis.com/upload/session?upload_id={session}"})
        elif parts[0] == "upload":
            self._store(query["name"], body, query.get("ifGenerationMatch"))
        else:  # /storage/v1/b/BUCKET/o/NAME/rewriteTo/b/BUCKET/o/NAME
            if parts[5] not in OBJECTS:
                return self._reply(404, b"{}")
            OBJECTS[parts[10]] = (next(NUMBERS), OBJECTS[parts[5]][1])
            self._json({"done": True, "resource": metadata(parts[10])})

    def do_PUT(self) -> None:  # noqa: N802
        _, query = self._asked()
        body = self._body()
        self._store(UPLOADS.pop(query["upload_id"]), body, None)

    def do_DELETE(self) -> None:  # noqa: N802
        parts, query = self._asked()
        with LOCK:
            there = parts[5] in OBJECTS
            if there and query.get("ifGenerationMatch") in (None, str(OBJECTS[parts[5]][0])):
                del OBJECTS[parts[5]]
                return self._reply(204, b"")
        self._reply(412 if there else 404, b"{}")

    def _asked(self) -> tuple[list[str], dict[str, str]]:
        url = urllib.parse.urlparse(self.path)
        return [urllib.parse.unquote(part) for part in url.path.split("/") if part], dict(urllib.parse.parse_qsl(url.query))

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        data = b""
        while size := int(self.rfile.readline(), 16):
            data += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return data

    def _store(self, name: str, data: bytes, only_if: str | None) -> None:
        with LOCK:
            if only_if is not None and only_if != str(OBJECTS.get(name, (0, b""))[0]):
                return self._reply(412, b"{}")
            OBJECTS[name] = (next(NUMBERS), data)
        self._json(metadata(name))

    def _listing(self, query: dict[str, str]) -> None:
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter")
        items, prefixes = [], set()
        for name in sorted(name for name in list(OBJECTS) if name.startswith(prefix)):
            inner, found, _ = name[len(prefix) :].partition(delimiter) if delimiter else (name, "", "")
            if found:
                prefixes.add(f"{prefix}{inner}{delimiter}")
            else:
                items.append(metadata(name))
        self._json({"items": items, "prefixes": sorted(prefixes)})

    def _data(self, name: str) -> None:
        if name not in OBJECTS:
            return self._reply(404, b"{}")
        generation, data = OBJECTS[name]
        first, last = 0, len(data) - 1
        if wanted := self.headers.get("Range"):
            start, _, stop = wanted.removeprefix("bytes=").partition("-")
            first = int(start) if start else max(0, len(data) - int(stop))
            last = min(int(stop), last) if start and stop else last
            if first > last:
                return self._reply(416, b"")
        headers = {"x-goog-generation": str(generation)}
        if wanted:
            headers["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
        return self._reply(206 if wanted else 200, data[first : last + 1], headers)


def metadata(name: str) -> dict[str, str]:
    generation, data = OBJECTS[name]
    return {"name": name, "size": str(len(data)), "generation": str(generation), "updated": DATE, "metageneration": "1"}


if __name__ == "__main__":
    Writable.certificate = sys.argv[1:]
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Writable)
    print(server.server_port, flush=True)
    server.serve_forever()
