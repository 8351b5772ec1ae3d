"""What a process that scores does with the memory of one pass, until the next."""

import os
import subprocess
import sys

import pytest

from detector.memory import ONE_HEAP

_PROGRAM = """
import resource, sys, threading
import numpy as np
from detector.memory import keep_freed_memory

def passes(count):
    for _ in range(count):
        made = [np.ones(2 << 20, np.uint8) for _ in range(60)]
        del made

def work():
    passes(3)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    passes(5)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

if sys.argv[1] == "keep":
    keep_freed_memory()
if sys.argv[2] == "thread":
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
else:
    work()
"""


def page_faults(how: str, where: str) -> int:
    words = [sys.executable, "-c", _PROGRAM, how, where]
    environment = os.environ | (ONE_HEAP if how == "keep" else {})
    done = subprocess.run(words, env=environment, check=True, capture_output=True, text=True)
    return int(done.stdout)


@pytest.mark.parametrize("where", ["main", "thread"])
def test_a_pass_is_made_in_the_memory_of_the_last_one(where: str) -> None:
    """Ray calls its actors in a thread, which has a heap of its own unless told otherwise."""
    assert page_faults("plain", where) > 1000, "there is nothing to save on this machine"
    assert page_faults("keep", where) < 100
