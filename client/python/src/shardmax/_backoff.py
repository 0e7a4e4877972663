"""How long to wait before the next try."""

from __future__ import annotations

import random
import time


class Backoff:
    """Waits that double from `first_s` to `longest_s`, each drawn between half of it and the whole, until `give_up_s`
    seconds after the first failure."""

    def __init__(self, first_s: float, longest_s: float, give_up_s: float) -> None:
        self._first_s, self._longest_s, self._give_up_s = first_s, longest_s, give_up_s
        self.reset()

    def reset(self) -> None:
        """After a success."""
        self._next_s = self._first_s
        self._end = 0.0

    def left_s(self) -> float:
        """Seconds until it gives up."""
        return max(0.0, self._end - time.monotonic()) if self._end else self._give_up_s

    def sleep(self) -> bool:
        """Waits after one more failure; False if the time is up."""
        now = time.monotonic()
        self._end = self._end or now + self._give_up_s
        wait_s = self._next_s * random.uniform(0.5, 1)
        self._next_s = min(2 * self._next_s, self._longest_s)
        if now + wait_s >= self._end:
            return False
        time.sleep(wait_s)
        return True
