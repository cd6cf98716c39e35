"""The places where a sweep can run, by the name that --backend takes."""

from collections.abc import Callable

from launch.backends.job import Backend
from launch.backends.local import Local

BACKENDS: dict[str, Callable[[int], Backend]] = {"local": Local}  # each takes --max-parallel
