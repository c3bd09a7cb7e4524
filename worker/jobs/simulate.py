"""Serve the stand-in of the service until a signal."""

import asyncio
from dataclasses import dataclass, field

from worker.jobs import Exit, UsageError, print_result
from worker.jobs.signals import stopping_signals
from worker.settings.errors import SettingsError
from worker.settings.model import Settings
from worker.settings.secret_key import secret_key
from worker.simulator.behaviour import TRANSPORT_FAULTS, Rules
from worker.simulator.server import Address, serve

DEMO_APP = 1400000000
# The public sample key of the vendor's signature library.
DEMO_KEY = "5bd2850fff3ecb11d7c805251c51ee463a25727bddc2385f3fa8bfee1bb93b5e"


@dataclass(frozen=True, slots=True)
class Options:
    """The options of the command."""

    host: str
    port: int
    quota: int
    latency_s: float
    jitter_s: float
    faults: list[str] = field(default_factory=list)


async def simulate(settings: Settings, options: Options) -> Exit:
    """Serve until SIGINT, SIGTERM or SIGHUP.

    Raises UsageError for a fault that does not exist, or an address that cannot be listened on.
    """
    rules = _rules(settings, options)
    address = Address(options.host, options.port, options.latency_s, options.jitter_s)
    serving = asyncio.ensure_future(serve(rules, address, lambda url: _announce(url, rules)))
    loop = asyncio.get_running_loop()
    for number in stopping_signals():
        loop.add_signal_handler(number, serving.cancel)
    try:
        answers = await serving
    except OSError as error:
        reason = error.strerror or str(error)
        raise UsageError(f"--host {options.host} --port {options.port}: {reason}") from None
    counted = ", ".join(f"{name} {n:,}" for name, n in sorted(answers.items()))
    print_result(f"answered: {counted or 'no call'}")
    return Exit.DONE


def parse_faults(faults: list[str]) -> dict[str, float]:
    """Return the probabilities by kind. Raises UsageError for what is no KIND=PROBABILITY."""
    parsed: dict[str, float] = {}
    for fault in faults:
        kind, _, text = fault.partition("=")
        try:
            probability = float(text)
        except ValueError:
            probability = -1.0
        if not 0 <= probability <= 1:
            raise UsageError(f"--fault {fault}: write KIND=PROBABILITY, for example 10002=0.02")
        if kind not in TRANSPORT_FAULTS and not (kind.isascii() and kind.isdigit() and int(kind)):
            kinds = ", ".join(sorted(TRANSPORT_FAULTS))
            raise UsageError(f"--fault {fault}: KIND is an error code or one of {kinds}")
        parsed[kind] = probability
    if sum(parsed.values()) > 1 + 1e-9:
        raise UsageError("--fault: the probabilities add up to more than 1")
    return parsed


def _rules(settings: Settings, options: Options) -> Rules:
    app = settings.app
    try:
        key = secret_key(app)
    except SettingsError as error:
        raise UsageError(*error.args) from None
    return Rules(
        sdk_app_id=app.sdk_app_id or DEMO_APP,
        admin=app.admin,
        secret_key=key or DEMO_KEY,
        quota_per_s=options.quota,
        faults=parse_faults(options.faults),
    )


def _announce(url: str, rules: Rules) -> None:
    print_result(f"listening on {url} (what was created: {url}/ledger)")
    if rules.secret_key == DEMO_KEY:
        print_result(
            f"TOPIC_IMPORT_APP__SDK_APP_ID={rules.sdk_app_id} "
            f"TOPIC_IMPORT_APP__SECRET_KEY={DEMO_KEY} "
            f"topic-import backfill FILE --base-url {url}"
        )
