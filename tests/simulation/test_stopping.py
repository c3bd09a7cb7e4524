"""From a request to stop to the end of all work."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from tests.support.virtual_clock import VirtualLoop
from worker.jobs.running import Stopping

DRAIN_S = 30.0


class Work:
    """Work that notes how it was stopped."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def drain(self) -> None:
        self.asked.append("drain")

    def abandon(self) -> None:
        self.asked.append("abandon")


def run(story: Callable[[Stopping, Work], Coroutine[Any, Any, None]]) -> list[str]:
    """Run a story on a virtual clock; return how the work was stopped."""
    loop, work = VirtualLoop(), Work()

    async def whole() -> None:
        await story(Stopping(DRAIN_S), work)

    try:
        loop.run_until_complete(whole())
    finally:
        loop.close()
    return work.asked


def test_work_goes_on_while_no_stop_is_asked_for() -> None:
    async def story(stopping: Stopping, work: Work) -> None:
        with stopping.of_work(drain=work.drain, abandon=work.abandon):
            await stopping.pause(2 * DRAIN_S)
        assert stopping.drain_left_s is None

    assert run(story) == []


def test_a_drain_that_takes_too_long_is_abandoned() -> None:
    async def story(stopping: Stopping, work: Work) -> None:
        with stopping.of_work(drain=work.drain, abandon=work.abandon):
            stopping.drain()
            assert stopping.drain_left_s == DRAIN_S
            await asyncio.sleep(DRAIN_S - 1)
            assert work.asked == ["drain"]
            await asyncio.sleep(2)
        assert stopping.drain_left_s == 0

    assert run(story) == ["drain", "abandon"]


def test_a_pause_ends_when_a_stop_is_asked_for() -> None:
    async def story(stopping: Stopping, work: Work) -> None:
        loop = asyncio.get_running_loop()
        loop.call_later(5.0, stopping.drain)
        await stopping.pause(60.0)
        assert 5.0 <= loop.time() < 6.0

    assert run(story) == []


def test_work_that_ended_is_not_stopped() -> None:
    async def story(stopping: Stopping, work: Work) -> None:
        with stopping.of_work(drain=work.drain, abandon=work.abandon):
            pass
        stopping.drain()

    assert run(story) == []


def test_work_that_begins_after_the_request_is_stopped_at_once() -> None:
    async def story(stopping: Stopping, work: Work) -> None:
        stopping.drain()
        stopping.abandon()
        with stopping.of_work(drain=work.drain, abandon=work.abandon):
            assert work.asked == ["drain", "abandon"]

    assert run(story) == ["drain", "abandon"]
