"""Independent jobs, some at a time."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from targets.processes import stopping_children

Result = TypeVar("Result")


def each(jobs: Sequence[Callable[[], Result]], at_once: int) -> list[Result]:
    """Run all jobs, so many at a time, in order; return what they return.

    After the first failure no further job begins, those that run are finished, and it is raised.
    When this process is interrupted, the programs of running jobs are ended.
    """
    if at_once == 1:
        return [job() for job in jobs]
    with ThreadPoolExecutor(at_once) as pool:
        waiting = [pool.submit(job) for job in jobs]
        try:
            return [future.result() for future in waiting]
        except BaseException as e:
            pool.shutdown(wait=False, cancel_futures=True)
            if not isinstance(e, Exception):
                with stopping_children():
                    pool.shutdown()
            raise
