"""A page in headless Chromium, over its debugging pipe: no server, no port, no further library."""

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path

PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--remote-debugging-pipe",
    "--no-first-run",
)


class Browser:
    """One page. `events` are all that it told: requests, console messages, exceptions."""

    def __init__(self, profile, width, height, touch=False):
        ours, theirs = os.pipe(), os.pipe()  # what we write, what it writes: its descriptors 3 and 4
        its = [fcntl.fcntl(end, fcntl.F_DUPFD, 64) for end in (ours[0], theirs[1])]  # neither of which is 3 or 4 now
        os.close(ours[0])
        os.close(theirs[1])
        flags = [*FLAGS, f"--user-data-dir={profile}", "about:blank"]

        self._process = subprocess.Popen(
            ["bash", "-c", f'exec "$0" "$@" 3<&{its[0]} 4>&{its[1]}', PROGRAM, *flags],
            pass_fds=its,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        for end in its:
            os.close(end)
        self._out, self._in = ours[1], theirs[0]
        self._rest, self._count, self._session, self.events = b"", 0, None, []
        target = next(t for t in self.ask("Target.getTargets")["targetInfos"] if t["type"] == "page")["targetId"]
        self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.ask(f"{domain}.enable")
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=touch)
        if touch:
            self.ask("Emulation.setTouchEmulationEnabled", enabled=True)

    def ask(self, method, **params):
        self._count += 1
        message = {"id": self._count, "method": method, "params": params}
        os.write(self._out, json.dumps(message | ({"sessionId": self._session} if self._session else {})).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._count:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)

    def open(self, file):
        self.ask("Page.navigate", url=Path(file).absolute().as_uri())
        self.until("document.readyState === 'complete'")

    def value(self, script):
        """What an expression is in the page, as JSON."""
        found = self.ask("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def until(self, script, seconds=60):
        deadline = time.monotonic() + seconds
        while not self.value(f"!!({script})"):
            assert time.monotonic() < deadline, f"it never was: {script}"
            time.sleep(0.05)

    def picture(self, file):
        """The whole page as a PNG."""
        shot = self.ask("Page.captureScreenshot", captureBeyondViewport=True)
        Path(file).write_bytes(base64.b64decode(shot["data"]))

    def move_to(self, x, y):
        self.ask("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def requests(self):
        """Addresses that the page asked for, but for itself and what it holds."""
        asked = [e["params"]["request"]["url"] for e in self.events if e["method"] == "Network.requestWillBeSent"]
        return [url for url in asked if not url.startswith(("data:", "blob:"))]

    def complaints(self):
        """Errors and warnings of the console, of scripts, and of what the page may not do."""
        told = [e["params"] for e in self.events if e["method"] in ("Runtime.exceptionThrown", "Log.entryAdded")]
        said = [e["params"] for e in self.events if e["method"] == "Runtime.consoleAPICalled"]
        return [*told, *(one for one in said if one["type"] in ("error", "warning", "assert"))]

    def close(self):
        self._process.kill()
        self._process.wait()
        os.close(self._out)
        os.close(self._in)

    def _next(self, seconds=60):
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._in], [], [], seconds)
            assert ready, "the browser does not answer"
            part = os.read(self._in, 1 << 16)
            assert part, "the browser has ended"
            self._rest += part
        line, _, self._rest = self._rest.partition(b"\0")
        return json.loads(line)
