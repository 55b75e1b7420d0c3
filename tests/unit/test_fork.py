"""The lock that a forked child may take, and the ids it draws."""

import os
import re
import threading
from pathlib import Path

import pytest

import llm_cost_middleware
from llm_cost_middleware.budget.ledger import unique_id
from llm_cost_middleware.fork import ForkSafeLock


def needs_fork(test):
    test = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")(test)
    return pytest.mark.filterwarnings("ignore::DeprecationWarning")(test)  # a fork beside threads: that is tried here


class Owner:
    __hash__ = None  # a value may own one too
    lock, other = ForkSafeLock(), ForkSafeLock()


def in_child(check):
    """What ``check`` returns in a forked child."""
    reads, writes = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writes, repr(check()).encode())
        os._exit(0)
    os.close(writes)
    with os.fdopen(reads) as answer:
        text = answer.read()
    os.waitpid(child, 0)
    return text


def test_each_instance_has_its_own_lock_for_life():
    first, second = Owner(), Owner()
    assert isinstance(first.lock, type(threading.Lock()))
    assert first.lock is first.lock is not first.other
    assert first.lock is not second.lock
    with first.lock:
        assert not first.lock.acquire(blocking=False)
        assert second.lock.acquire(blocking=False)


@needs_fork
def test_a_child_takes_a_lock_that_a_thread_of_its_parent_holds():
    owner, held, done = Owner(), threading.Event(), threading.Event()

    def hold():
        with owner.lock:
            held.set()
            done.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    try:
        assert in_child(lambda: (owner.lock.acquire(timeout=5), owner.other.acquire(timeout=5))) == "(True, True)"
        assert not owner.lock.acquire(blocking=False), "the parent's is still held"
    finally:
        done.set()
        thread.join()


@needs_fork
def test_a_child_draws_no_id_of_its_parent():
    assert in_child(lambda: unique_id().partition("-")[0]) != repr(unique_id().partition("-")[0])


def test_every_lock_that_is_kept_survives_a_fork():
    """But for those that live as long as one call or one file, and what stands alone."""
    package = Path(llm_cost_middleware.__file__).parent
    kept = {
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        if re.search(r"\b(?:threading\.)?R?Lock\(\)", path.read_text()) and "simulator" not in path.parts
    }
    assert kept == {
        "fork.py",
        "alerts/service.py",  # made anew in a child
        "dashboard/answers.py",  # of one server, which forks nothing
        "lifecycle/streams.py",  # of one stream
        "patterns/batch.py",  # of one process_many
        "patterns/progress.py",  # as above
        "budget/backends/sqlite/ledger_file.py",  # a child opens the file anew
        "budget/backends/sqlite/group_commit.py",  # of one commit, and of the file
    }
