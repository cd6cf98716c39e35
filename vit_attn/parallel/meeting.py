"""How processes come together: each opens a line to process 0, which waits for all of them, and knows who is missing.

jax meets too, but where somebody does not come it aborts without a name. So it is told to only when all are there.
"""

import json
import os
import select
import socket
import time
from dataclasses import asdict, dataclass
from typing import Any

from vit_attn.parallel.cluster import Place
from vit_attn.spec.errors import UserError

RETRY_SECONDS = 0.2
GREETING = "vit_attn 1"


@dataclass(frozen=True)
class Peer:
    """Who a process is, for those who speak of it."""

    process: int
    host: str
    pid: int


class Line:
    """A connection over which two processes send each other small dicts, a line of JSON each."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection, self._rest = connection, b""
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def fileno(self) -> int:
        return self._connection.fileno()

    def ready(self, seconds: float = 0.0) -> bool:
        """Whether within this time there is something to receive, or to learn that the other side is gone."""
        return bool(select.select([self], [], [], max(seconds, 0.0))[0])

    def send(self, message: dict[str, Any]) -> None:
        self._connection.sendall(json.dumps(message).encode() + b"\n")

    def receive(self) -> list[dict[str, Any]]:
        """What has come, after waiting for something to come. Raises OSError when the other side is gone."""
        data = self._connection.recv(65536)
        if not data:
            raise ConnectionResetError("closed by the other side")
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [json.loads(line) for line in lines]

    def first(self, seconds: float) -> dict[str, Any]:
        """The next message alone. Raises OSError (TimeoutError) or ValueError."""
        deadline = time.monotonic() + seconds
        while True:
            self._connection.settimeout(max(deadline - time.monotonic(), 0.001))
            if messages := self.receive():
                self._connection.settimeout(5.0)  # for sending: what is small is sent at once, unless the other side hangs
                return messages[0]

    def close(self) -> None:
        self._connection.close()


@dataclass(frozen=True)
class Meeting:
    """All `peers` in order, the `lines` to them (of process 0: to all others; of these: to process 0), jax's port there."""

    peers: list[Peer]
    lines: dict[int, Line]
    jax_port: int


def meet(place: Place, what: str, seconds: float) -> Meeting:
    """Waits until all are there, and have come to do the same: `what`. Raises UserError, on all that came, if they do not."""
    host, port = _address(place)
    me = Peer(place.process, socket.gethostname(), os.getpid())
    return _host(place, port, me, what, seconds) if place.process == 0 else _come(place, host, port, me, what, seconds)


def _address(place: Place) -> tuple[str, int]:
    host, colon, port = place.coordinator.rpartition(":")
    if not (colon and host and port.isdecimal() and 0 < int(port) < 65536):
        raise UserError(f"--coordinator={place.coordinator} must be HOST:PORT, an address of process 0 and a free port there")
    return host.strip("[]"), int(port)


def _host(place: Place, port: int, me: Peer, what: str, seconds: float) -> Meeting:
    deadline = time.monotonic() + seconds
    came: dict[int, tuple[Peer, Line]] = {}
    with _listen(place, port, deadline) as listener:
        while len(came) < place.processes - 1:
            listener.settimeout(max(deadline - time.monotonic(), 0.001))
            try:
                line = Line(listener.accept()[0])
            except TimeoutError:
                came = _waiting(came)
                missing = [process for process in range(1, place.processes) if process not in came]
                raise _called_off(came, not_there(place, missing, seconds)) from None
            try:
                greeting = line.first(5.0)
                if greeting["greeting"] != GREETING:
                    raise ValueError
                peer = Peer(**greeting["peer"])
            except (OSError, ValueError, KeyError, TypeError):  # somebody else's, who looks what is behind this port
                line.close()
                continue
            came = _waiting(came)
            if reason := _unfit(place, peer, greeting, what, came):
                line.send({"off": reason})
                raise _called_off(came, reason)
            came[peer.process] = peer, line
    with socket.create_server(("", 0)) as probe:
        jax_port = probe.getsockname()[1]
    peers = [me, *(came[process][0] for process in sorted(came))]
    lines = {process: line for process, (_, line) in came.items()}
    for line in lines.values():
        line.send({"peers": [asdict(peer) for peer in peers], "jax_port": jax_port})
    return Meeting(peers, lines, jax_port)


def _waiting(came: dict[int, tuple[Peer, Line]]) -> dict[int, tuple[Peer, Line]]:
    """Those who are still there: who waits says nothing."""
    return {process: one for process, one in came.items() if not one[1].ready()}


def _listen(place: Place, port: int, deadline: float) -> socket.socket:
    both = socket.has_dualstack_ipv6()
    while True:
        try:
            family = socket.AF_INET6 if both else socket.AF_INET
            return socket.create_server(("", port), family=family, dualstack_ipv6=both, backlog=place.processes)
        except OSError as error:
            if time.monotonic() > deadline:  # until then an earlier start may be about to end
                raise UserError(f"process 0 cannot wait at --coordinator={place.coordinator}: {error.strerror}") from error
            time.sleep(RETRY_SECONDS)


def _unfit(place: Place, peer: Peer, greeting: dict[str, Any], what: str, came: dict[int, tuple[Peer, Line]]) -> str:
    """Why a newcomer cannot be one of these; "" if it can."""
    it = f"process {peer.process} (host {peer.host}, pid {peer.pid})"
    if greeting.get("processes") != place.processes:
        return f"{it} was started as one of {greeting.get('processes')}, process 0 as one of {place.processes}"
    if peer.process in came or not 0 < peer.process < place.processes:
        other = came[peer.process][0] if peer.process in came else None
        return f"{it} came, but that is already " + (f"host {other.host}, pid {other.pid}" if other else f"{place}")
    if greeting.get("what") != what:
        return f"{it} was started with another run than process 0: all need the same --config, --config.* and --workdir"
    return ""


def _called_off(came: dict[int, tuple[Peer, Line]], reason: str) -> UserError:
    for _, line in came.values():
        try:
            line.send({"off": reason})
        except OSError:
            continue
    return UserError(reason)


def not_there(place: Place, missing: list[int], seconds: float) -> str:
    who = f"process{'es' if len(missing) > 1 else ''} {', '.join(map(str, missing))} of {place.processes}"
    return (
        f"{who} did not come within {seconds:g} s to {place.coordinator} (found by {place.found_by}); "
        "start all of them, give more --join-seconds, or train --alone"
    )


def _come(place: Place, host: str, port: int, me: Peer, what: str, seconds: float) -> Meeting:
    line = Line(_connect(place, host, port, seconds))
    try:
        line.send({"greeting": GREETING, "peer": asdict(me), "processes": place.processes, "what": what})
        answer = line.first(2 * seconds + 30)  # process 0 may have started later, and waits for others as long as this one does
    except (OSError, ValueError) as error:
        raise UserError(f"process 0 of {place.processes} left {place.coordinator} before all had come ({error})") from error
    if "off" in answer:
        raise UserError(answer["off"])
    return Meeting([Peer(**peer) for peer in answer["peers"]], {0: line}, answer["jax_port"])


def _connect(place: Place, host: str, port: int, seconds: float) -> socket.socket:
    deadline = time.monotonic() + seconds
    while True:
        try:
            return socket.create_connection((host, port), timeout=max(min(10.0, deadline - time.monotonic()), 0.1))
        except OSError as error:
            if time.monotonic() + RETRY_SECONDS > deadline:
                why = error.strerror or str(error)
                raise UserError(f"{not_there(place, [0], seconds)} ({why})") from error
            time.sleep(RETRY_SECONDS)
