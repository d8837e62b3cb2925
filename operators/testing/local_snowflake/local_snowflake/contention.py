"""Losing against a concurrent transaction: how often, and when, the loser runs again.

```text
 rows, merges ──lose──> Losers ──win──> gone
 DDL ──go_first──> waits until no loser is left
```
Guarantees: DDL without end starves neither rows nor merges; nobody waits longer than a loser tries.
"""

from __future__ import annotations

import random
import threading
import time

RETRIES = 40
"""How often a statement that lost against a concurrent transaction runs again."""

_LONGEST = 0.2
"""The longest pause before running again, in seconds."""


def pause(attempt: int) -> None:
    """Waits a little, longer each time, before running a statement again."""
    time.sleep(random.uniform(0.2, 1.0) * min(0.002 * 2**attempt, _LONGEST))


class Losers:
    """Who lost and runs again; DDL, which never enters itself, lets them go first."""

    def __init__(self) -> None:
        self._count, self._gone = 0, threading.Condition()

    def add(self, number: int) -> None:
        """So many more, or fewer."""
        with self._gone:
            self._count += number
            self._gone.notify_all()

    def go_first(self) -> None:
        """Waits until none is left."""
        with self._gone:
            self._gone.wait_for(lambda: self._count == 0, timeout=RETRIES * _LONGEST)


class Attempts:
    """The attempts of one piece of work; with `losers`, it counts as one of them from its first loss to its end."""

    def __init__(self, losers: Losers | None = None) -> None:
        self._losers, self._lost = losers, 0

    def __enter__(self) -> Attempts:
        return self

    def __exit__(self, *_: object) -> None:
        if self._lost and self._losers:
            self._losers.add(-1)

    def again(self) -> bool:
        """After a loss: pauses and says yes, or says no when it is enough."""
        if self._lost + 1 == RETRIES:
            return False
        if self._lost == 0 and self._losers:
            self._losers.add(1)
        pause(self._lost)
        self._lost += 1
        return True
