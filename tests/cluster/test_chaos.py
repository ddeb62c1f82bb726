"""Peers are killed, stopped and started again at random moments, and no bit changes."""

from __future__ import annotations

import os
import random
import signal
import threading
from contextlib import suppress

import psutil
import pytest
import telegrad as tg

from tests.cluster.conftest import gateway, wait_for
from tests.cluster.test_crew import embedded, others, train

SEED = int(os.environ.get("TELEGRAD_CHAOS_SEED", "20261125"))
ROUNDS = int(os.environ.get("TELEGRAD_CHAOS_ROUNDS", "3"))


@pytest.mark.slow
@pytest.mark.parametrize("number", range(ROUNDS))
def test_peers_that_are_killed_at_any_moment_change_no_bit(number: int) -> None:
    rng = random.Random(SEED + number)
    print(f"TELEGRAD_CHAOS_SEED={SEED + number}")
    steps, replicas = 80, rng.choice([2, 3, 5])
    expected = embedded(replicas=replicas, steps=steps)
    with gateway("--workers", "4", "--worker-lease-seconds", "2") as running:
        wait_for(running, 4)
        over = threading.Event()
        struck: list[str] = []

        def strike() -> None:
            while not over.wait(rng.uniform(0.02, 0.6)):
                victims = others(running, session.home)
                if victims:
                    victim, how = rng.choice(victims), rng.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGSTOP])
                    with suppress(psutil.NoSuchProcess):
                        victim.send_signal(how)
                        struck.append(how.name)

        with tg.connect(running.address, new=True) as session:
            striking = threading.Thread(target=strike)
            striking.start()
            try:
                found = train(replicas=replicas, steps=steps)
            finally:
                over.set()
                striking.join()

    assert struck
    assert found == expected
