"""`make run`: import the sample into a simulated service, and print how to do it again."""

import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from worker.jobs.simulate import DEMO_APP, DEMO_KEY

SAMPLE = Path("config/topics.sample.jsonl")
PROGRAM = (sys.executable, "-m", "worker")
COMMAND = os.path.relpath(Path(sys.executable).with_name("topic-import"))
FAULTS = ("10002=0.02", "80005=0.01", "reset-after=0.005", "502=0.005")
SIMULATE = (
    "simulate", "--latency", "0.05", *(word for fault in FAULTS for word in ("--fault", fault)),
)  # fmt: skip
SETTINGS = {
    "TOPIC_IMPORT_APP__SDK_APP_ID": str(DEMO_APP),
    "TOPIC_IMPORT_APP__SECRET_KEY": DEMO_KEY,
}
LISTENING = re.compile(r"listening on (http://\S+:(\d+))")
KEY = re.compile(r"TOPIC_IMPORT_APP__SECRET_KEY=(\S+)")
"""With LISTENING what the other benchmarks read of a simulator's first lines."""
SOME_DEAD = 1


@dataclass(frozen=True, slots=True)
class Service:
    """A simulated service that runs now."""

    url: str
    port: str


def main() -> int:
    """Import the sample into a service with faults; return 0 if the outcome is as expected."""
    out = Path(tempfile.mkdtemp(prefix="sample-", dir=_out()))
    print("a simulated service, with faults:", *FAULTS)
    with _simulator() as service:
        command = _command(service, out)
        print(command, flush=True)
        code = subprocess.run(["/bin/sh", "-c", command], check=False).returncode
    if code != SOME_DEAD:
        print(f"the backfill ended with exit code {code}, 1 was expected", file=sys.stderr)
        return code or 1
    print(
        "\nThe sample's dead letters are expected: it holds records that are invalid and records "
        f"that the service refuses.\nSee them: {out}/dead-letter.jsonl"
        "\nThe command above, pasted, finds that all is done. To import once more, paste these "
        "two (`kill %1` stops the service):"
        f"\n{_in_shell(*SIMULATE, '--port', service.port)} &"
        f"\n{_command(service, out.with_name(f'{out.name}-again'))}"
    )
    return 0


def _out() -> Path:
    Path("out").mkdir(exist_ok=True)
    return Path("out")


@contextmanager
def _simulator() -> Iterator[Service]:
    with subprocess.Popen(
        [COMMAND, *SIMULATE, "--port", "0"],
        env=os.environ | SETTINGS,
        stdout=subprocess.PIPE,
        text=True,
    ) as simulator:
        try:
            assert simulator.stdout is not None
            url = LISTENING.search(simulator.stdout.readline())
            assert url is not None
            yield Service(url[1], url[2])
        finally:
            simulator.terminate()


def _command(service: Service, out: Path) -> str:
    return _in_shell("backfill", str(SAMPLE), "--out", str(out), "--base-url", service.url)


def _in_shell(*words: str) -> str:
    """Return a whole command for a shell, with the settings that it needs."""
    settings = (f"{name}={value}" for name, value in SETTINGS.items())
    return " ".join([*settings, shlex.join([COMMAND, *words])])


if __name__ == "__main__":
    sys.exit(main())
