"""The flags of launch.sweep that say what a sweep may cost and how it is packed."""

import argparse
from typing import Any

from launch.estimate import DEVICES
from launch.halving import Halving, halving_of
from launch.plan import Wish
from vit_attn.spec.errors import UserError

ASK_ABOVE, MANY_MEMBERS = 100.0, 10_000


def add_plan_flags(flags: argparse.ArgumentParser) -> None:
    def add(flag: str, help_text: str, **more: Any) -> None:
        flags.add_argument(flag, help=help_text, **more)

    add("--pack", "members a process: a number, all that differ in numbers only, or auto: as many as the device's memory holds "
        "(default: auto on accelerators, else all)", metavar="N|all|auto")  # fmt: skip
    add("--devices-per-pack", "accelerators for each process (default: as many as a batch keeps busy)", type=int, metavar="N")
    add("--device", f"estimate core-hours for this one: {', '.join(DEVICES)} (default: what is here)", metavar="NAME")
    add("--mfu", "share of the device's peak that training gets (default: 0.4)", type=float, default=0.4, metavar="SHARE")
    add("--step-ms", "instead: a measured step of the first member, in milliseconds", type=float, metavar="MS")
    add("--step-devices", "devices that it was measured on (default: 1)", type=int, default=1, metavar="N")
    add("--ask-above", f"ask before more core-hours than this (default: {ASK_ABOVE:g})", type=float, default=ASK_ABOVE,
        metavar="N")  # fmt: skip
    add("--yes", "do not ask", action="store_true")
    add("--halve-at", "shares of the steps at which the worse half of the members ends, as 0.25,0.5", metavar="SHARES")
    add("--metric", "by which they are ranked, as val/accuracy", metavar="NAME")
    add("--metric-order", "max: higher is better; min: lower (default: min for names that end in loss)", metavar="max|min")
    add("--halve-within", "rank only members that agree in these settings together (default: the whole sweep)", metavar="KEYS")


def wish_of(flags: argparse.Namespace) -> Wish:
    """Raises UserError."""
    pack = flags.pack
    if pack is not None and pack not in ("all", "auto"):
        if not pack.lstrip("-").isdecimal():
            raise UserError(f"--pack={pack} must be a number of members, all or auto")
        pack = int(pack)
    return Wish(pack, flags.devices_per_pack, flags.max_parallel)


def halving_flags(flags: argparse.Namespace) -> Halving | None:
    return halving_of(flags.halve_at, flags.metric, flags.metric_order, flags.halve_within)
