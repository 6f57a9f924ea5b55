"""Work spread over processes: in order, whole, and ended by the first error."""

import os
import signal
import time
from collections.abc import Iterator

import pytest

from crystalmesh.errors import CrystalmeshError
from crystalmesh.workers import in_order


def slow_square(x: int) -> int:
    time.sleep(0.02 * (x % 3))
    return x * x


def fail_at_three(x: int) -> int:
    if x == 3:
        raise ValueError("three")
    return x


def die(_: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return 0


@pytest.mark.parametrize("jobs", [1, 2, 3])
def test_results_come_in_order(jobs: int) -> None:
    assert list(in_order(slow_square, range(30), jobs)) == [x * x for x in range(30)]


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_error_comes_through(jobs: int) -> None:
    with pytest.raises(ValueError, match="three"):
        list(in_order(fail_at_three, range(9), jobs))


def test_a_killed_process_is_said() -> None:
    with pytest.raises(CrystalmeshError, match="killed"):
        list(in_order(die, range(3), 2))


def test_few_items_wait_at_once() -> None:
    taken = 0

    def stream() -> Iterator[int]:
        nonlocal taken
        for x in range(100):
            taken += 1
            yield x

    results = in_order(slow_square, stream(), 2)
    next(results)
    assert taken <= 4 * 2 + 1
    results.close()  # type: ignore[attr-defined]


def test_stopping_does_not_wait_for_what_is_under_way() -> None:
    started = time.monotonic()

    def interrupted() -> Iterator[int]:
        yield from range(8)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        for _ in in_order(sleep_unless_first, interrupted(), 2):
            pass
    assert time.monotonic() - started < 30


def sleep_unless_first(x: int) -> int:
    if x:
        time.sleep(60)
    return x


def interrupt_itself(_: int) -> int:
    time.sleep(0.2)
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.2)
    return os.getpid()


def test_ctrl_c_reaches_this_process_only() -> None:
    assert len(set(in_order(interrupt_itself, range(12), 3))) == 3
    assert signal.pthread_sigmask(signal.SIG_BLOCK, set()) == set()
