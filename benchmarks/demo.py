"""`make run`: import the sample into a simulated service."""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

SAMPLE = Path("config/topics.sample.jsonl")
PROGRAM = (sys.executable, "-m", "worker")
LISTENING = re.compile(r"listening on (http://\S+)")
KEY = re.compile(r"TOPIC_IMPORT_APP__SECRET_KEY=(\S+)")
SOME_DEAD = 1


def main() -> int:
    """Import the sample into a service with faults; return 0 if the outcome is as expected."""
    out = Path(tempfile.mkdtemp(prefix="sample-", dir=_out()))
    faults = ("10002=0.02", "80005=0.01", "reset-after=0.005", "502=0.005")
    options = [word for fault in faults for word in ("--fault", fault)]
    print("starting the simulator of the service, with faults:", *faults)
    with subprocess.Popen(
        [*PROGRAM, "simulate", "--port", "0", "--latency", "0.05", *options],
        stdout=subprocess.PIPE,
        text=True,
    ) as simulator:
        try:
            return _import(out, *_announced(simulator))
        finally:
            simulator.terminate()


def _out() -> Path:
    Path("out").mkdir(exist_ok=True)
    return Path("out")


def _announced(simulator: subprocess.Popen[str]) -> tuple[str, str]:
    assert simulator.stdout is not None
    url = LISTENING.search(simulator.stdout.readline())
    key = KEY.search(simulator.stdout.readline())
    assert url is not None
    assert key is not None
    return url[1], key[1]


def _import(out: Path, url: str, key: str) -> int:
    environment = os.environ | {
        "TOPIC_IMPORT_APP__SDK_APP_ID": "1400000000",
        "TOPIC_IMPORT_APP__SECRET_KEY": key,
        "TOPIC_IMPORT_RECORDS__KEY_FIELD": "id",
    }
    command = ["backfill", str(SAMPLE), "--out", str(out), "--base-url", url]
    print("topic-import", *command, flush=True)
    code = subprocess.run([*PROGRAM, *command], env=environment, check=False).returncode
    if code == SOME_DEAD:
        print(
            "The sample's dead letters are expected: it holds records that are invalid and "
            f"records that the service refuses.\nSee them: {out}/dead-letter.jsonl"
        )
        return 0
    print(f"the backfill ended with exit code {code}, 1 was expected", file=sys.stderr)
    return code or 1


if __name__ == "__main__":
    sys.exit(main())
