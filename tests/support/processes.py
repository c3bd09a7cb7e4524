"""Runs the simulator and the commands as processes, and audits their results."""

import gzip
import os
import re
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

PROGRAM = (sys.executable, "-m", "worker")
ROOT = Path(__file__).resolve().parents[2]
APP = "1400000000"
KEY = "5bd2850fff3ecb11d7c805251c51ee463a25727bddc2385f3fa8bfee1bb93b5e"
PATIENCE_S = 60
FAST_RETRY: dict[str, Any] = {"RETRY__BASE_DELAY": "0.01", "RETRY__MAX_DELAY": "0.05"}
"""Settings that let tests with faults retry without long delays."""
_LISTENING = re.compile(r"listening on (http://\S+)")


def environment(**settings: str) -> dict[str, str]:
    """Return an environment with these settings and none of the machine's own."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("TOPIC_IMPORT_")}
    ours = {"APP__SDK_APP_ID": APP, "APP__SECRET_KEY": KEY} | settings
    given = {f"TOPIC_IMPORT_{name}": value for name, value in ours.items() if value}
    # Without PYTHONPATH, a command in a job's directory would run the installed worker instead.
    return inherited | given | {"PYTHONPATH": str(ROOT)}


@dataclass(frozen=True)
class Simulator:
    """A running simulator of the service."""

    url: str

    def ledger(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self.url}/ledger", timeout=PATIENCE_S) as answer:  # noqa: S310
            ledger: dict[str, Any] = orjson.loads(answer.read())
        return ledger


@contextmanager
def simulator(*options: str) -> Iterator[Simulator]:
    """Run the simulator on a free port, and stop it on leaving the context."""
    command = [*PROGRAM, "simulate", "--port", "0", *options]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, env=environment(), text=True, cwd=ROOT
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            match = _LISTENING.search(line)
            assert match, f"the simulator said: {line!r}"
            yield Simulator(match[1])
        finally:
            process.terminate()
            process.communicate(timeout=PATIENCE_S)


@dataclass
class Job:
    """One job in its own directory: writes inputs, runs commands, reads results."""

    directory: Path
    url: str = "http://127.0.0.1:9"

    @property
    def out(self) -> Path:
        return self.directory / "out"

    def write(self, records: Iterable[Any], name: str = "topics.jsonl") -> Path:
        """Write records (or raw lines as bytes) as JSON Lines. Returns the path of the file."""
        path = self.directory / name
        lines = [r if isinstance(r, bytes) else orjson.dumps(r) for r in records]
        content = b"".join(line + b"\n" for line in lines)
        path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
        return path

    def command(self, *words: str | Path) -> list[str]:
        return [*PROGRAM, *map(str, words)]

    def start(self, *words: str | Path, **settings: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(*words),
            env=environment(**settings),
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(
        self, *words: str | Path, stdin: bytes | None = None, **settings: str
    ) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            self.command(*words),
            env=environment(**settings),
            cwd=self.directory,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            timeout=PATIENCE_S,
            check=False,
        )

    def backfill_words(self, *words: str | Path, rate: str | None = "0") -> list[str | Path]:
        """Return a whole command; `rate` None: at the quota of the settings."""
        limited = [] if rate is None else ["--rate", rate]
        return ["backfill", *words, "--base-url", self.url, "--no-progress", *limited]

    def backfill(
        self, *words: str | Path, stdin: bytes | None = None, **settings: str
    ) -> subprocess.CompletedProcess[bytes]:
        return self.run(*self.backfill_words(*words), stdin=stdin, **settings)

    def lines(self, name: str) -> list[dict[str, Any]]:
        return [orjson.loads(line) for line in (self.out / name).read_bytes().splitlines()]

    def imported(self) -> list[dict[str, Any]]:
        return self.lines("imported.jsonl")

    def dead(self) -> list[dict[str, Any]]:
        return self.lines("dead-letter.jsonl")

    def report(self) -> dict[str, Any]:
        report: dict[str, Any] = orjson.loads((self.out / "report.json").read_bytes())
        return report

    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = orjson.loads(self.run("status", "--json").stdout)
        return status


def audit(job: Job, service: Simulator) -> None:
    """Assert that result files, report and ledger agree, and that every topic was made once."""
    report, imported, dead = job.report(), job.imported(), job.dead()
    created = [topic["TopicId"] for topic in service.ledger()["topics"]]
    sent = [line["topic_id"] for line in imported]
    assert Counter(sent) == Counter(created), "the results are not what the service holds"
    assert max(Counter(created).values(), default=1) == 1
    assert report["imported"] == len(imported)
    assert report["dead"] == len(dead)
    assert report["read"] == sum(
        report[name] for name in ("queued", "imported", "dead", "duplicate", "dismissed")
    )
    assert report["by_reason"] == Counter(line["reason"] for line in dead)
    sources = [(line["source"], line["topic_id"]) for line in [*imported, *dead]]
    assert len(sources) == len(set(sources)), "a record stands in two places"
