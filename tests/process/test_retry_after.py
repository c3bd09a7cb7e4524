"""A reply that says how long to wait: the worker waits so long."""

from math import ceil
from pathlib import Path

import pytest

from tests.support.processes import Job
from tests.support.stand_in import Call, Refusal, stand_in
from tests.support.topics import records

REFUSES_FROM_S = 0.5
REFUSES_UNTIL_S = 2.5
SLOTS = 3


@pytest.mark.parametrize(("status", "refused_max"), [(429, SLOTS), (503, 10 + SLOTS)])
def test_calls_wait_as_long_as_the_reply_asks(
    tmp_path: Path, status: int, refused_max: int
) -> None:
    def answer(call: Call) -> Refusal | None:
        left_s = REFUSES_UNTIL_S - call.at_s
        if call.at_s < REFUSES_FROM_S or left_s <= 0:
            return None
        return Refusal(status=status, headers={"Retry-After": str(ceil(left_s))})

    with stand_in(answer) as service:
        job = Job(tmp_path, service.url)
        words = job.backfill_words(job.write(records(100)), rate="50")
        done = job.run(*words, HTTP__MAX_IN_FLIGHT=str(SLOTS))
        assert done.returncode == 0, done.stdout.decode()
        assert len(service.topics) == 100
        assert 0 < len(service.refused) <= refused_max, "what was in flight, and no other call"
        assert not job.dead()
