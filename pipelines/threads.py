"""Blocking work beside the event loop of a flow, in threads that keep no process alive.

The threads of asyncio.to_thread would hold the process until they are done, and a flow run that is
ended has to end.
"""

import asyncio
import contextlib
import contextvars
import queue
import threading
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from prefect.exceptions import TerminationSignal

from mmcore.core.cancel import StopSwitch
from mmcore.errors import LeaseLost, RunCancelled

ResultT = TypeVar("ResultT")
Job = Callable[[], None]


async def in_daemon_thread(function: Callable[..., ResultT], *arguments: object) -> ResultT:
    """Call a function that only reads and decides; whoever ends the flow run leaves it behind."""
    job, future = _job_and_future(lambda: function(*arguments))
    threading.Thread(target=job, name="mm-decide", daemon=True).start()
    return await future


class StepThread:
    """The one thread in which the steps of a flow run.

    One, since Ray's processes die with the thread that started them. What it does is stopped by
    the run's switch, also when the flow is ended while it waits; `why_ended` says by whom.
    """

    def __init__(self, stop: StopSwitch, *, why_ended: Callable[[], RunCancelled]) -> None:
        self._stop = stop
        self._why_ended = why_ended
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        threading.Thread(target=self._work, name="mm-steps", daemon=True).start()

    def close(self) -> None:
        """Let the thread end once it has nothing to do."""
        self._jobs.put(None)

    async def call(self, function: Callable[..., ResultT], *arguments: object) -> ResultT:
        """Call a function there, and wait for it."""
        context = contextvars.copy_context()

        def work() -> ResultT:
            with self._stop.working():
                return context.run(function, *arguments)

        job, future = _job_and_future(work)
        self._jobs.put(job)
        try:
            return await future
        except (asyncio.CancelledError, TerminationSignal):
            self._stop.throw(self._why_ended())
            self._stop.wind_down()  # not for long: see mmcore/recipe/pulse.py
            raise

    def _work(self) -> None:
        with contextlib.suppress(RunCancelled, LeaseLost):  # that came after the work was done
            while (job := self._jobs.get()) is not None:
                job()


def _job_and_future(work: Callable[[], ResultT]) -> tuple[Job, "asyncio.Future[ResultT]"]:
    """Return what another thread has to call, and the future of this loop that it fulfils."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[ResultT] = loop.create_future()

    def fulfil(set_outcome: Callable[[], None]) -> None:
        if not future.done():  # otherwise nobody waits any more
            set_outcome()

    def job() -> None:
        try:
            set_outcome = partial(future.set_result, work())
        except BaseException as error:
            set_outcome = partial(future.set_exception, error)  # raised where it is awaited
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(fulfil, set_outcome)

    return job, future
