"""Processes meet over real sockets; here each is a thread. Who is missing, or does not fit, is named to all that came."""

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from trainer_runs import free_port

from vit_attn.parallel.cluster import Place
from vit_attn.parallel.meeting import meet
from vit_attn.spec.errors import UserError


def all_of(*came, seconds=10.0):
    """What `meet` returned or raised in each of (processes, process, what)."""
    port = free_port()

    def one(who):
        processes, process, what = who
        try:
            return meet(Place(processes, process, f"localhost:{port}", "a test"), what, seconds)
        except UserError as error:
            return str(error)

    with ThreadPoolExecutor(len(came)) as pool:
        return list(pool.map(one, came))


def test_all_come():
    meetings = all_of((3, 2, "run"), (3, 0, "run"), (3, 1, "run"))
    assert len({meeting.jax_port for meeting in meetings}) == 1
    assert all([peer.process for peer in meeting.peers] == [0, 1, 2] for meeting in meetings)
    assert [sorted(meeting.lines) for meeting in meetings] == [[0], [1, 2], [0]]
    meetings[1].lines[2].send({"say": "a"})
    meetings[0].lines[0].send({"say": "b"})
    assert meetings[0].lines[0].receive() == [{"say": "a"}]
    assert meetings[1].lines[2].receive() == [{"say": "b"}]


def test_who_is_missing_is_named_to_all_that_came():
    for text in all_of((5, 0, "run"), (5, 2, "run"), (5, 3, "run"), seconds=1.0):
        assert "processes 1, 4 of 5 did not come within 1 s to localhost:" in text
        assert "--join-seconds" in text


def test_process_0_is_missing():
    (text,) = all_of((2, 1, "run"), seconds=0.5)
    assert "process 0 of 2 did not come within 0.5 s to localhost:" in text
    assert "refused" in text


@pytest.mark.parametrize(
    ("other", "words"),
    [((2, 1, "other run"), "started with another run"), ((3, 1, "run"), "as one of 3, process 0 as one of 2")],
)
def test_one_that_does_not_fit(other, words):
    texts = all_of((2, 0, "run"), other)
    assert all(words in text and "process 1 (host" in text for text in texts)


def test_two_that_are_the_same():
    texts = all_of((3, 0, "run"), (3, 1, "run"), (3, 1, "run"))
    assert all("process 1 (host" in text and "that is already host" in text for text in texts)


def test_strangers_and_those_who_left_do_not_count():
    """A port scanner, and a process 1 that was killed while it waited and started again."""
    port = free_port()
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(meet, Place(3, 0, f"localhost:{port}", "a test"), "run", 20.0)
        gone = connected(port)
        gone.sendall(
            b'{"greeting": "vit_attn 1", "peer": {"process": 1, "host": "h", "pid": 1}, "processes": 3, "what": "run"}\n'
        )
        with connected(port) as scanner:
            scanner.sendall(b"GET / HTTP/1.1\r\n\r\n")
        time.sleep(0.2)
        gone.close()
        others = [pool.submit(meet, Place(3, process, f"localhost:{port}", "a test"), "run", 20.0) for process in (1, 2)]
        assert all(len(one.result().peers) == 3 for one in (first, *others))


def connected(port):
    for _ in range(200):
        try:
            return socket.create_connection(("localhost", port))
        except OSError:
            threading.Event().wait(0.02)
    raise AssertionError("nobody listens")
