"""Work for several processes, whose results come in the order of the work."""

import itertools
import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import TypeVar

from crystalmesh.errors import CrystalmeshError

T = TypeVar("T")
R = TypeVar("R")


class _Process(SpawnProcess):
    """A process that Ctrl-C does not reach, from its first moment: it is left to this one."""

    def start(self) -> None:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # inherited
        try:
            super().start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Context(SpawnContext):
    """The pool starts each process when it has work for it: all of them by this class."""

    Process = _Process


def in_order(function: Callable[[T], R], items: Iterable[T], jobs: int) -> Iterator[R]:
    """function(item) for each item, by `jobs` processes; with one job, in this process.

    Only a few items a process wait at once, so a long stream is never in memory as a whole.

    Args:
        function: at the top level of a module, as the processes are spawned; a script that calls
            this needs `if __name__ == "__main__"`.
        items: what to work on.
        jobs: number of processes; the results do not depend on it.

    Raises:
        CrystalmeshError: a process was killed. What `function` raises is raised here.
    """
    if jobs == 1:
        yield from map(function, items)
        return
    pool = ProcessPoolExecutor(jobs, _Context())
    stream = iter(items)
    try:
        waiting: deque[Future[R]] = deque()
        for item in itertools.islice(stream, 4 * jobs):
            waiting.append(pool.submit(function, item))
        while waiting:
            yield waiting.popleft().result()
            for item in itertools.islice(stream, 1):
                waiting.append(pool.submit(function, item))
    except BrokenProcessPool as error:
        raise CrystalmeshError(
            "a worker process was killed (out of memory?); run again with fewer CRYSTALMESH_JOBS"
        ) from error
    except BaseException:
        # What is under way may take minutes, and nobody waits for it any more.
        for process in multiprocessing.active_children():
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
