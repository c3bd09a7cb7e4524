"""The queue: the embedded one in `--out`, or the Redis that holds it, and that of the quota."""

import asyncio
import os
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

from worker.job_directory import IMPORTED_NAME, QUEUE_NAME
from worker.jobs import UsageError
from worker.jobs.from_settings import NO_REDIS, job_identity, reveal_redis_url
from worker.jobs.opening import redis_url
from worker.queues.contract import QueueError
from worker.queues.directory_lock import taker_of
from worker.rules.diagnosis.finding import Finding, failed, passed
from worker.rules.diagnosis.redis_server import Server, judge_server
from worker.settings.model import Settings

PINGS = 20
TIMEOUT_S = 5.0
SCRATCH_LIFE_S = 60


def queues(settings: Settings, out: Path) -> Iterator[Finding]:
    """Yield what is found of the queue and, where it is another server, of the shared quota."""
    try:
        url = redis_url(settings, out)
    except UsageError as error:
        yield failed("queue", str(error), "correct queue.url, or leave it out")
        return
    if url is None:
        yield _embedded(settings, out)
    else:
        yield from _redis("queue", url, keeps_queue=True)
    shared = settings.rate.shared
    if shared is not None:
        yield from _redis("quota", reveal_redis_url(shared), keeps_queue=False)


def _embedded(settings: Settings, out: Path) -> Finding:
    if not (out / QUEUE_NAME).exists():
        if (out / IMPORTED_NAME).exists():
            return failed(
                "queue",
                f"{out / IMPORTED_NAME} is there without its queue",
                "bring the queue back, or import with --adopt, or give another --out",
            )
        return passed("queue", f"a new job begins in {out}")
    try:
        return _job(settings, out)
    except QueueError as error:
        return failed("queue", str(error), "mend it, or give another --out")


def _job(settings: Settings, out: Path) -> Finding:
    """Return what is found of the job in `out`. Raises QueueError."""
    from worker.queues.sqlite.store import SqliteStore  # noqa: PLC0415 - only for a job

    taker = taker_of(out)
    store = SqliteStore(out / QUEUE_NAME, read_only=True)
    try:
        known, counts = store.identity(), store.counts()
    finally:
        store.close()
    ours = job_identity(settings)
    others = [name for name, value in known.items() if value != getattr(ours, name, value)]
    if others and (counts.imported or counts.queued):
        return failed(
            "queue",
            f"the job in {out} was begun with another {' and '.join(others)}",
            "give the settings that it was begun with, or another --out",
        )
    holds = f"the job in {out} holds {counts.read:,} records, {counts.queued:,} of them queued"
    return passed("queue", f"{holds}; {taker} imports them now" if taker else holds)


def _redis(name: str, url: str, *, keeps_queue: bool) -> Iterator[Finding]:
    try:
        found = asyncio.run(_ask(name, url, keeps_queue=keeps_queue))
    except ImportError:
        found = [failed(name, "the Redis client is not installed", NO_REDIS)]
    except ValueError as error:
        found = [failed(name, str(error), "correct the URL")]
    yield from found


async def _ask(name: str, url: str, *, keeps_queue: bool) -> list[Finding]:
    """Ask a server for everything. Raises ImportError without its client, ValueError for the URL.

    What is written there for a moment has an expiry and a name of its own beside the stream.
    """
    from redis.exceptions import RedisError  # noqa: PLC0415 - an extra

    from worker.queues.redis.streams import StreamUrl  # noqa: PLC0415
    from worker.quota.shared import key as quota_key  # noqa: PLC0415
    from worker.redis_client import redis_client, sentence  # noqa: PLC0415

    place = StreamUrl.parse(url)
    client = redis_client(place.server, TIMEOUT_S, TIMEOUT_S)
    try:
        await client.ping()
        server = await _describe(client)
        beside = place.key("doctor") if keeps_queue else quota_key("doctor")
        refused = await _refused(client, f"{beside}-{os.getpid()}", keeps_queue=keeps_queue)
    except (RedisError, OSError) as error:
        return [failed(name, sentence(error), "check the URL, and that Redis runs and answers")]
    finally:
        await client.aclose()
    found = [passed(name, f"{place} answers" if keeps_queue else "Redis answers")]
    found += judge_server(server, name, keeps_queue=keeps_queue)
    if server.info.get("cluster_enabled") == "1" and keeps_queue and "{" not in place.stream:
        advice = f"put braces around its name: stream={{{place.stream}}}"
        found.append(failed(f"{name} cluster", "the keys of the stream are in many slots", advice))
    if refused:
        advice = "allow these commands to the user in the URL (ACL SETUSER)"
        found.append(failed(f"{name} rights", f"may not {', '.join(refused)}", advice))
    else:
        found.append(passed(f"{name} rights", "all that is needed may be used"))
    return found


async def _describe(client: Any) -> Server:
    """Return what a server says of itself, as far as it may be asked."""
    info = {str(key): str(value) for key, value in (await client.info()).items()}
    took_s = []
    for _ in range(PINGS):
        began_s = time.perf_counter()
        await client.ping()
        took_s.append(time.perf_counter() - began_s)
    return Server(
        info,
        statistics.median(took_s),
        save=await _setting(client, "save"),
        appendfsync=await _setting(client, "appendfsync"),
    )


async def _setting(client: Any, name: str) -> str | None:
    from redis.exceptions import ResponseError  # noqa: PLC0415 - an extra

    try:
        found: dict[str, str] = await client.config_get(name)
    except ResponseError:
        return None  # managed servers allow no CONFIG
    return found.get(name)


async def _refused(client: Any, key: str, *, keeps_queue: bool) -> list[str]:
    """Return the commands that may not be used, tried on keys of our own, which are removed."""
    from redis.exceptions import NoPermissionError, ResponseError  # noqa: PLC0415 - an extra

    group, hash_key = "doctor", f"{key}:hash"
    in_script = "return redis.call('HSET', KEYS[1], 'doctor', '1')"
    tried: list[tuple[str, Callable[[], Awaitable[Any]]]] = [
        ("TIME", lambda: client.eval("return redis.call('TIME')", 1, key)),
        ("HSET", lambda: client.eval(in_script, 1, hash_key)),
        ("PEXPIRE", lambda: client.pexpire(hash_key, SCRATCH_LIFE_S * 1000)),
    ]
    if keeps_queue:
        tried += [
            ("XADD", lambda: client.xadd(key, {"doctor": "1"})),
            ("PEXPIRE", lambda: client.pexpire(key, SCRATCH_LIFE_S * 1000)),
            ("XGROUP", lambda: client.xgroup_create(key, group, "0")),
            ("XREADGROUP", lambda: client.xreadgroup(group, group, {key: ">"})),
            ("XPENDING", lambda: client.xpending(key, group)),
            ("XACK", lambda: client.xack(key, group, "0-1")),
            ("XRANGE", lambda: client.xrange(key, count=1)),
            ("XDEL", lambda: client.xdel(key, "0-1")),
        ]
    tried += [("DEL", lambda: client.delete(hash_key)), ("DEL", lambda: client.delete(key))]
    refused = []
    for name, ask in tried:
        try:
            await ask()
        except NoPermissionError:
            refused.append(name)
        except ResponseError as error:
            # A command that follows from a refused one fails otherwise; scripts hide the kind.
            if "NOPERM" in str(error) or "permission" in str(error):
                refused.append(name)
            elif not refused:
                raise
    return list(dict.fromkeys(refused))
