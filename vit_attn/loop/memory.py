"""What the devices' memory holds: planned, by the compiler, and used, by the device's own count."""

import math
from typing import Any

import jax

MIB = 2**20


def memory_line(compiled: Any, state: Any, members: int) -> str:
    """ "memory per device: 1,234 MiB = state of 4 members 400 + batch 100 + temporary 734 + results 0": of the compiled update.

    `state`: a member's, or its shapes. `results` are what does not take the old state's place. Empty where the backend makes
    no plan. What evaluation takes, and a second batch on its way, come on top.
    """
    parts = memory_parts(compiled, state)
    if parts is None:
        return ""
    parts = {"state" if members == 1 else f"state of {members} members": parts.pop("state") * members, **parts}
    words = " + ".join(f"{name} {size / MIB:,.1f}" for name, size in parts.items())
    return f"memory per device: {sum(parts.values()) / MIB:,.1f} MiB = {words}"


def memory_parts(compiled: Any, state: Any) -> dict[str, int] | None:
    """Bytes on one device, of one member: {"state", "batch", "temporary", "results"}; None where the backend makes no plan."""
    plan = compiled.memory_analysis()
    if plan is None:
        return None
    one = state_bytes(state)
    return {
        "state": one,
        "batch": plan.argument_size_in_bytes - one,
        "temporary": plan.temp_size_in_bytes,
        "results": plan.output_size_in_bytes - plan.alias_size_in_bytes,
    }


def state_bytes(tree: Any) -> int:
    """Of arrays, or of shapes that have a sharding, on one device."""
    return sum(x.dtype.itemsize * math.prod(x.sharding.shard_shape(x.shape)) for x in jax.tree.leaves(tree))


def device_limit() -> int | None:
    """Bytes that a device gives to this process; None where it does not say (a CPU)."""
    limits = [stats["bytes_limit"] for device in jax.local_devices() if (stats := device.memory_stats())]
    return min(limits) if limits else None


def device_metrics() -> dict[str, float]:
    """`memory/device_mib`: the most that a device of this process has had in use so far; nothing where it does not count."""
    counts = [stats["peak_bytes_in_use"] for device in jax.local_devices() if (stats := device.memory_stats())]
    return {"memory/device_mib": max(counts) / MIB} if counts else {}
