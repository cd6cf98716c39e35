"""All loops stop after the same step, whatever the order in which steps end and messages arrive."""

import random
import threading
import time
from queue import Queue

import pytest

from vit_attn.parallel.stop_step import StopStep

PROCESSES = 3


class Net:
    """A thread a process, to which messages come as late as chance has it, but in order."""

    def __init__(self, rng):
        self.queues, self.rng = [Queue() for _ in range(PROCESSES)], rng
        self.stops = [StopStep(i, PROCESSES, self.teller(i)) for i in range(PROCESSES)]
        for i in range(PROCESSES):
            threading.Thread(target=self.deliver, args=(i, random.Random(rng.random())), daemon=True).start()

    def teller(self, sender):
        to = range(1, PROCESSES) if sender == 0 else [0]
        return lambda message: [self.queues[i].put((sender, message)) for i in to]

    def deliver(self, i, rng):
        while True:
            sender, message = self.queues[i].get()
            time.sleep(rng.random() * 0.01)
            if message["say"] == "begin":
                self.stops[i].begin("why")
            else:
                self.stops[i].take(sender, message)


def steps_until_stop(stop, rng, first, last, steps):
    for step in range(first, last + 1):
        time.sleep(rng.random() * 0.002)
        steps.append(step)
        if stop.after(step):
            return
    steps.append("end")


@pytest.mark.parametrize("seed", range(30))
def test_all_stop_after_the_same_step(seed):
    rng = random.Random(seed)
    net, done = Net(rng), [[] for _ in range(PROCESSES)]
    late = [rng.random() * 0.03 * (seed % 3) for _ in range(PROCESSES)]  # some are still compiling

    def loop(i):
        time.sleep(late[i])
        steps_until_stop(net.stops[i], random.Random(seed * 10 + i), 9, 60, done[i])

    threads = [threading.Thread(target=loop, args=(i,), daemon=True) for i in range(PROCESSES)]
    for thread in threads:
        thread.start()
    time.sleep(rng.random() * 0.06)
    for _ in range(2):  # two of them want to stop
        net.queues[0].put((0, {"say": "begin"}))
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    assert len({steps[-1] for steps in done}) == 1, (seed, done)
    assert done[0] == done[1] == done[2]
    assert done[0][0] == 9


def test_too_late_to_stop():
    """One loop is past its last step already: all go on to the end."""
    net = Net(random.Random(0))
    done = [[] for _ in range(PROCESSES)]
    steps_until_stop(net.stops[1], random.Random(1), 1, 5, done[1])
    net.queues[0].put((0, {"say": "begin"}))
    time.sleep(0.1)
    for i in (0, 2):
        steps_until_stop(net.stops[i], random.Random(i), 1, 5, done[i])
    assert all(steps == [1, 2, 3, 4, 5, "end"] for steps in done)
