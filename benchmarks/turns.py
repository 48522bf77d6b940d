"""Times of several ways to do the same, taken side by side, because machines are noisy."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Mapping

import torch

Times = dict[str, list[float]]  # seconds of each turn, by what was timed


def take_turns(
    ways: Mapping[str, Callable[[], object]], *, turns: int, clock: Callable[[], float]
) -> Times:
    """Seconds of each way in each turn, in which all come once, in changing order."""
    times: Times = {name: [] for name in ways}
    order = list(ways)
    by = random.Random(0)
    for way in ways.values():
        way()
    for _ in range(turns):
        by.shuffle(order)
        for name in order:
            start = clock()
            ways[name]()
            times[name].append(clock() - start)
    return times


def cpu_seconds() -> float:
    """What all threads computed, as if they had always done so at once."""
    return time.process_time() / torch.get_num_threads()


def ratio(times: Times, *, faster: str, slower: str) -> float:
    """The median of the ratios within a turn."""
    pairs = zip(times[slower], times[faster], strict=True)
    return statistics.median(slow / fast for slow, fast in pairs)
