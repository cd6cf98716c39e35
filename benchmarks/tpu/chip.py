"""The published figures of one TPU chip."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Chip:
    """`topology`: the name of a slice of them that the compiler knows."""

    topology: str
    clock: float  # cycles per second
    flops: float  # bf16, per second
    bandwidth: float  # of HBM, bytes per second
    links: float  # bytes per second that it sends to its neighbours, over all links

    def seconds_of_cycles(self, cycles: float) -> float:
        return cycles / self.clock

    def seconds_of_bytes(self, moved: float) -> float:
        return moved / self.bandwidth


# 197 TFLOP/s, 819 GB/s, and 400 GB/s of links in both directions together: https://cloud.google.com/tpu/docs/v5e. Four matrix
# units of 128 x 128 reach 197 TFLOP/s at 1.5 GHz: 4 * 128 * 128 * 2 * 1.5e9 = 196.6e12.
V5E = Chip(topology="v5e:2x2", clock=1.5e9, flops=197e12, bandwidth=819e9, links=200e9)
