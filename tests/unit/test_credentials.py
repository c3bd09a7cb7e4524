"""The current signature over long runs and clock jumps."""

from hypothesis import given
from hypothesis import strategies as st

from tests.unit.test_usersig import APP, KEY, opened
from worker.credentials import LIFE_S, GivenCredentials, SigningCredentials


class Clocks:
    """A wall clock that may jump, and a monotonic clock that does not."""

    def __init__(self) -> None:
        self.wall_s = 1_700_000_000.0
        self.now_s = 0.0

    def credentials(self) -> SigningCredentials:
        return SigningCredentials(
            APP, "administrator", KEY, wall_clock=lambda: self.wall_s, clock=lambda: self.now_s
        )


@given(st.lists(st.tuples(st.floats(0, 40_000), st.sampled_from([0, 0, 0, 3600, -3600]))))
def test_the_current_signature_is_valid_for_at_least_an_hour(
    steps: list[tuple[float, int]],
) -> None:
    clocks = Clocks()
    credentials = clocks.credentials()
    for step_s, jump_s in steps:
        clocks.now_s += step_s
        clocks.wall_s += step_s + jump_s
        ticket = opened(credentials.current().value)
        left_s = ticket["TLS.time"] + ticket["TLS.expire"] - clocks.wall_s
        assert 3600 <= left_s <= LIFE_S + 1


def test_concurrent_requests_share_one_renewal() -> None:
    clocks = Clocks()
    credentials = clocks.credentials()
    stale = credentials.current()
    clocks.wall_s += 10
    assert all(credentials.renew(stale) for _ in range(100))
    assert credentials.current().generation == stale.generation + 1
    assert credentials.current().value != stale.value
    assert KEY not in repr(credentials)
    assert stale.value not in repr(stale)


def test_a_given_signature_cannot_be_renewed() -> None:
    credentials = GivenCredentials("ready")
    assert credentials.current().value == "ready"
    assert not credentials.renew(credentials.current())
