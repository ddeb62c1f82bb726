"""The worker's lock: one thread at a time, and usable by conditions."""

from __future__ import annotations

import threading
import time

from telegrad_server.yielding import YieldingLock


def test_it_lets_one_thread_in_at_a_time() -> None:
    lock = YieldingLock()
    inside: list[int] = []
    most: list[int] = []

    def work(number: int) -> None:
        for _ in range(500):
            with lock:
                inside.append(number)
                time.sleep(0)  # whoever could come in now would
                most.append(len(inside))
                inside.remove(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(most) == 2000
    assert max(most) == 1


def test_a_taken_lock_can_be_tried_and_is_free_after_an_error() -> None:
    lock = YieldingLock()
    try:
        with lock:
            assert not lock.acquire(blocking=False)
            raise ValueError
    except ValueError:
        pass
    assert lock.acquire(blocking=False)
    lock.release()


def test_a_condition_over_it_wakes_its_waiter() -> None:
    lock = YieldingLock()
    condition = threading.Condition(lock)  # type: ignore[arg-type]
    letters: list[str] = []

    def wait() -> None:
        with condition:
            condition.wait_for(lambda: letters == ["a"])
            letters.append("b")

    thread = threading.Thread(target=wait)
    thread.start()
    with condition:
        letters.append("a")
        condition.notify()
    thread.join(timeout=10)
    assert letters == ["a", "b"]
