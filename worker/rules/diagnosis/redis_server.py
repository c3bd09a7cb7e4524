"""Judges a Redis server that holds a queue: its version, what it keeps or throws away."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from worker.rules.diagnosis.finding import Finding, failed, passed, warned

VERSION_MIN = (6, 2)
KEEPS_ALL = "noeviction"
LATENCY_WARN_S = 0.02


@dataclass(frozen=True, slots=True)
class Server:
    """What a server says of itself.

    `info`: the fields of INFO. `save`, `appendfsync`: these settings, None where they may not be
    read. `latency_s`: of one command, in the median.
    """

    info: Mapping[str, str]
    latency_s: float
    save: str | None = None
    appendfsync: str | None = None


def judge_server(server: Server, name: str, *, keeps_queue: bool = True) -> Iterator[Finding]:
    """Yield what is found of a server. `keeps_queue`: records are in it, not only the quota."""
    yield _version(server, name)
    if server.info.get("role") in {"slave", "replica"}:
        yield failed(
            f"{name} role", "it is a replica that only reads", "name its master in the URL"
        )
    if keeps_queue:
        yield _eviction(server, name)
        yield _persistence(server, name)
    yield _latency(server, name)


def _version(server: Server, name: str) -> Finding:
    version = server.info.get("valkey_version") or server.info.get("redis_version", "")
    product = "Valkey" if "valkey_version" in server.info else "Redis"
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:2])
    if numbers < VERSION_MIN:
        return failed(
            f"{name} version", f"{product} {version or 'unknown'}", "6.2 or newer is needed"
        )
    return passed(f"{name} version", f"{product} {version}")


def _eviction(server: Server, name: str) -> Finding:
    policy = server.info.get("maxmemory_policy", KEEPS_ALL)
    title = f"{name} eviction"
    message = f"maxmemory-policy is {policy}"
    if policy == KEEPS_ALL:
        return passed(title, message)
    advice = "CONFIG SET maxmemory-policy noeviction, and in its file"
    if policy.startswith("volatile"):
        return warned(title, f"{message}: it drops what has an expiry when it is full", advice)
    return failed(title, f"{message}: when it is full it throws records away", advice)


def _persistence(server: Server, name: str) -> Finding:
    title = f"{name} persistence"
    if server.info.get("aof_enabled") == "1":
        if server.info.get("aof_last_write_status", "ok") != "ok":
            return failed(title, "its last write to disk failed", "make room there; see its log")
        always = server.appendfsync == "always"
        how = "every write" if always else "a crash may lose the last second"
        return passed(title, f"appendonly is on ({how})")
    if server.save == "" or (server.save is None and server.info.get("rdb_last_save_time") == "0"):
        return failed(title, "it keeps nothing: a restart loses the queue", _append_only())
    if server.info.get("rdb_last_bgsave_status", "ok") != "ok":
        return failed(title, "its last snapshot failed", "make room there; see its log")
    return warned(title, "snapshots only: a crash loses what came after the last", _append_only())


def _append_only() -> str:
    return "CONFIG SET appendonly yes, and in its file; appendfsync always loses nothing"


def _latency(server: Server, name: str) -> Finding:
    message = f"{server.latency_s * 1000:.1f} ms a command"
    if server.latency_s > LATENCY_WARN_S:
        return warned(f"{name} latency", message, "run topic-import closer to Redis")
    return passed(f"{name} latency", message)
