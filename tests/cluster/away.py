"""A client for tests on a host of its own: it trains or counts, and tells in lines of JSON how far it has come.

``python -m tests.cluster.away train|count ADDRESS WORKER STEPS``, with the certificate in TELEGRAD_TEST_CA and the
token in TELEGRAD_TOKEN_FILE. It stops before the steps that TELEGRAD_TEST_GATES names until it reads a line.
"""

from __future__ import annotations

import json
import os
import sys
import time

import numpy as np
import telegrad as tg
from telegrad import nn
from telegrad.errors import TelegradError

from tests.cluster.test_crew import digest, train


def say(**event: object) -> None:
    """An event for the test."""
    print(json.dumps({**event, "at": time.monotonic()}), flush=True)


def main(what: str, address: str, worker: str, steps: int) -> None:
    """Do it; an error is an event, too."""
    gates = {int(word) for word in os.environ.get("TELEGRAD_TEST_GATES", "").split()}

    def before(step: int) -> None:
        say(step=step)
        if step in gates:
            sys.stdin.readline()

    try:
        with tg.connect(
            address, ca_cert=os.environ["TELEGRAD_TEST_CA"], worker=worker or None, queue_seconds=30, new=True
        ) as session:
            say(home=session.home, direct=session.is_direct)
            if what == "train":
                say(digest=digest(train(replicas=4, steps=steps, before=before)))
                return
            count = nn.Parameter(np.zeros(1, np.float32))
            for step in range(1, steps + 1):
                before(step)
                count.assign(count + 1)
                say(count=count.item())
                time.sleep(0.02)
            say(ended=True)
    except TelegradError as error:
        say(error=type(error).__name__, message=error.message)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
