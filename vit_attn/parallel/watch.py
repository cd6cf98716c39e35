"""What processes that train together tell each other besides numbers: that they live, when to stop, that one failed.

One thread in each process, and a line from each to process 0, which passes on what concerns all. Nothing here waits for a
device or for the loop, so that a peer's end is noticed while both hang in a computation that will never end.
"""

import os
import selectors
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, NoReturn

from vit_attn.parallel.meeting import Meeting
from vit_attn.parallel.stop_step import StopStep

TICK_SECONDS = 0.5
ALIVE_SECONDS = 2.0
LAST_SECONDS = 10.0  # for the last words: then the process ends whether they are said or not
LINGER_SECONDS = 3.0  # process 0 ends last, since jax in the others aborts when it is gone


class Watch:
    """Ends this process, with a line that says why, when another one is gone, silent for `silence_seconds`, or has failed."""

    def __init__(self, process: int, meeting: Meeting, silence_seconds: float) -> None:
        self._me, self._peers, self._lines = process, meeting.peers, dict(meeting.lines)
        self._silence_seconds = silence_seconds
        self._stop = StopStep(process, len(meeting.peers), self._tell)
        self._heard = dict.fromkeys(self._lines, time.monotonic())
        self._told_alive = self._ticked = time.monotonic()
        self._calls = 0  # of stop_after
        self.step = -1  # the last one that this process has done, of those that it did in this start; -1: none
        self._done: set[int] = set()
        self._all_done = threading.Event()
        self._over = threading.Event()  # somebody says the last words already
        self._sending, self._ending = threading.Lock(), threading.Lock()
        self.wants_to_stop: Callable[[], str] = lambda: ""  # asked again and again: why this process wants all to stop
        self.last_words: Callable[[str], str] = lambda why: why  # what to say, and to write, when it is over because of `why`
        self._selector = selectors.DefaultSelector()
        for peer, line in self._lines.items():
            self._selector.register(line, selectors.EVENT_READ, peer)
        threading.Thread(target=self._run, name="watch-peers", daemon=True).start()

    def name(self, process: int) -> str:
        return f"process {process} of {len(self._peers)} (host {self._peers[process].host})"

    def writer(self) -> tuple[int, str]:
        """(process id, host) of process 0, which writes the run's files."""
        return self._peers[0].pid, self._peers[0].host

    def stop_after(self, step: int) -> str:
        """Why all are to stop now, with `step` done; "" if they are to go on. All call it equally often, and it is the same
        call that stops them: at the end of a step, or between two batches of an evaluation."""
        self._calls += 1
        if reason := self._stop.after(self._calls):
            return reason
        self.step = step
        return ""

    def leave(self) -> None:
        """Waits until all have done their work. After that nobody is missed."""
        self._mark_done(self._me)
        self._tell_first({"say": "done"})
        self._all_done.wait()

    def wait_for_blame(self) -> None:
        """After an error of a device, which may have come only since a peer is gone: if so, this process ends in here."""
        if self._over.wait(self._silence_seconds + 5):
            time.sleep(2 * LAST_SECONDS)  # the watching thread is about to end this process

    def fail(self, why: str, code: int) -> NoReturn:
        """Ends all processes because this one failed, which it has printed."""
        self._end(f"{self.name(self._me)} failed: {why}", code, of_this=True)

    def _run(self) -> None:
        try:
            while not (self._all_done.is_set() or self._over.is_set()):
                self._tick()
                for key, _ in self._selector.select(TICK_SECONDS):
                    self._read(key.data)
        except Exception as error:  # a process that nobody watches would hang one day
            self._end(f"{self.name(self._me)} cannot watch the others: {type(error).__name__}: {error}", 1)

    def _tick(self) -> None:
        now = time.monotonic()
        slept, self._ticked = now - self._ticked - TICK_SECONDS, now
        if slept > ALIVE_SECONDS:  # this process did not run, so it could not hear the others either
            self._heard = {peer: heard + slept for peer, heard in self._heard.items()}
        if now - self._told_alive > ALIVE_SECONDS:
            self._told_alive = now
            self._tell({"say": "alive"})
        for peer, heard in self._heard.items():
            if now - heard > self._silence_seconds:
                self._end(f"{self.name(peer)} is gone: nothing was heard of it for {self._silence_seconds:g} s", 1)
        if reason := self.wants_to_stop():
            self._want_stop(reason)

    def _want_stop(self, reason: str) -> None:
        if self._me == 0:
            self._stop.begin(f"{self.name(0)}: {reason}")
        elif not self._stop.begun:
            self._tell_first({"say": "stop", "reason": reason})

    def _read(self, peer: int) -> None:
        try:
            messages = self._lines[peer].receive()
        except OSError:
            messages = [{"say": "over", "why": f"{self.name(peer)} is gone", "code": 1}]
        self._heard[peer] = time.monotonic()
        for message in messages:
            if not (self._all_done.is_set() or self._over.is_set()):
                self._take(peer, message)

    def _take(self, peer: int, message: dict[str, Any]) -> None:
        match message["say"]:
            case "stop":
                self._stop.begin(f"{self.name(peer)}: {message['reason']}")
            case "freeze" | "at" | "until":
                self._stop.take(peer, message)
            case "failed" | "over":
                self._end(message["why"], message["code"])
            case "done":
                self._mark_done(peer)
            case "all done":
                self._all_done.set()

    def _mark_done(self, process: int) -> None:
        self._done.add(process)
        if self._me == 0 and len(self._done) == len(self._peers):
            self._tell({"say": "all done"})
            self._all_done.set()

    def _tell_first(self, message: dict[str, Any]) -> None:
        if self._me != 0:
            self._tell(message)

    def _tell(self, message: dict[str, Any]) -> None:
        """To process 0; from process 0, to all others. Who does not take it is noticed by its silence."""
        with self._sending:
            for line in self._lines.values():
                try:
                    line.send(message)
                except OSError:
                    continue

    def _end(self, why: str, code: int, of_this: bool = False) -> NoReturn:
        """Tells the others, and ends this process with its last words. `of_this`: it failed, and has said so itself."""
        with self._ending:
            already = self._over.is_set()
            self._over.set()
        if already:  # the other thread is about to end this process
            time.sleep(2 * LAST_SECONDS)
        last = threading.Timer(LAST_SECONDS, _end_now, (why, code))  # the words may hang, on a disk that is gone
        last.daemon = True
        last.start()
        if self._me == 0:
            self._tell({"say": "over", "why": why, "code": code})
        elif of_this:
            self._tell({"say": "failed", "why": why, "code": code})
        if self._me == 0 or of_this:
            self._wait_for_hang_up(LINGER_SECONDS)
        words = self.last_words(why) if self._me == 0 or not of_this else why
        if not of_this:
            sys.stdout.flush()
            print(f"error: {' '.join(words.split())}", file=sys.stderr, flush=True)
        os._exit(code)

    def _wait_for_hang_up(self, seconds: float) -> None:
        """Until the other sides have closed their lines: who closes first may take back what it said last."""
        deadline = time.monotonic() + seconds
        for line in self._lines.values():
            try:
                while line.ready(deadline - time.monotonic()):
                    line.receive()
            except OSError:
                continue


def _end_now(why: str, code: int) -> None:
    os.write(2, f"error: {why}\n".encode())
    os._exit(code)
