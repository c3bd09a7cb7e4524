"""What `--help` says of each command: examples, exit codes, settings that it reads."""

from dataclasses import dataclass

SHARED_SETTINGS = "app.*, rate.*, http.*, retry.*, records.*, verify.*, halt.*, queue.*"
"""What everything that imports reads."""
WRONG_USAGE = "2  wrong usage or settings; nothing was started"
HALTED = "3  halted: nothing is lost, a person must act, the same command continues"
NO_QUEUE = "3  the queue or the disk cannot be used"


@dataclass(frozen=True, slots=True)
class Page:
    """The end of the help of one command.

    `sentence`: what the list of commands says; with the longest name it fits into 80 columns.
    `exits`: a line for each exit code. `settings`: names, or a section with `.*`; empty: none.
    """

    sentence: str
    examples: tuple[str, str]
    exits: tuple[str, ...]
    settings: str

    @property
    def end(self) -> str:
        """The text after the options."""
        settings = f"{self.settings}. `topic-import settings` shows their values"
        return "\n\n".join(
            (
                _block("Examples:", self.examples),
                _block("Exit codes:", self.exits),
                f"Settings it reads: {settings if self.settings else 'none of its own'}.",
            )
        )


def _block(title: str, lines: tuple[str, ...]) -> str:
    """Return lines that are not joined: this is what a first line with only a backspace asks."""
    return "\n".join(["\b", title, *(f"  {line}" for line in lines)])


PAGES: dict[str, Page] = {
    "backfill": Page(
        "Import files, and stop when all records are settled.",
        (
            "topic-import backfill topics.jsonl --limit 20",
            "topic-import backfill topics.jsonl more.jsonl.gz --out march",
        ),
        (
            "0  all imported",
            "1  finished, some dead letters",
            WRONG_USAGE,
            HALTED,
            "130, 143, 129  stopped by SIGINT, SIGTERM or SIGHUP; the same command continues",
        ),
        f"{SHARED_SETTINGS}, drain.timeout",
    ),
    "serve": Page(
        "Import from the queue until it is asked to stop.",
        (
            "topic-import serve",
            "topic-import serve --until-empty --rate 50",
        ),
        (
            "0  after a stop, or when the queue is empty",
            "1  with --until-empty: the queue is empty, some dead letters",
            WRONG_USAGE,
            "3  outcomes could not be stored; with --until-empty: halted",
            "130, 143, 129  stopped at once, by a second signal",
        ),
        f"{SHARED_SETTINGS}, outputs.*, admin.*, drain.*",
    ),
    "enqueue": Page(
        "Put the records of files into the queue.",
        (
            "topic-import enqueue topics.jsonl",
            "producer | topic-import enqueue -",
        ),
        ("0  all are queued", "1  some are invalid, and dead-lettered", WRONG_USAGE, NO_QUEUE),
        "app.sdk_app_id, records.*, queue.url",
    ),
    "replay": Page(
        "Put dead letters back into the queue after a fix.",
        (
            "topic-import replay --code 10010 --dry-run",
            "topic-import replay --source topics.jsonl:17",
        ),
        ("0  some are queued again", "1  none matched", WRONG_USAGE, NO_QUEUE),
        "app.sdk_app_id, records.*, queue.url",
    ),
    "dismiss": Page(
        "Give dead letters up; they are kept and counted.",
        (
            "topic-import dismiss --source topics.jsonl --dry-run",
            'topic-import dismiss --group "@TGS#_@TGS#cQVLVHIM62CJ"',
        ),
        ("0  some were dismissed", "1  none matched", WRONG_USAGE, NO_QUEUE),
        "app.sdk_app_id, records.*, queue.url",
    ),
    "check": Page(
        "Check all records of files, and send nothing.",
        (
            "topic-import check topics.jsonl",
            "topic-import check topics.jsonl --json",
        ),
        ("0  all are valid", "1  there are problems", WRONG_USAGE),
        "records.*",
    ),
    "status": Page(
        "Show what a job or a queue holds.",
        (
            "topic-import status",
            "topic-import status --out march --json",
        ),
        ("0  queue and files agree", "1  they disagree", WRONG_USAGE, NO_QUEUE),
        "app.sdk_app_id, records.*, queue.url",
    ),
    "doctor": Page(
        "Find out what would keep an import from working.",
        (
            "topic-import doctor",
            "topic-import doctor --out march --json",
        ),
        (
            "0  nothing fails; there may be warnings",
            "1  something fails, wrong settings included",
            "2  wrong options",
        ),
        "all",
    ),
    "settings": Page(
        "Show every setting, its value and where it comes from.",
        (
            "topic-import settings",
            "topic-import settings --config other.toml --json",
        ),
        ("0  the settings are shown", WRONG_USAGE),
        "all",
    ),
    "init": Page(
        "Write a settings file to fill in.",
        (
            "topic-import init",
            "topic-import init channels.jsonl --config channels.toml",
        ),
        ("0  the file is written", "2  it is there already, or wrong usage; nothing was written"),
        "",
    ),
    "explain": Page(
        "Show what an error code means and what is done about it.",
        (
            "topic-import explain 10010 exhausted 502",
            "topic-import explain --verdict halt",
        ),
        ("0  shown, also where nothing matches", WRONG_USAGE),
        "",
    ),
    "simulate": Page(
        "Serve a local stand-in of the service to try things on.",
        (
            "topic-import simulate",
            "topic-import simulate --quota 50 --fault 10002=0.02 --fault reset-after=0.01",
        ),
        ("0  stopped by a signal", WRONG_USAGE),
        "app.sdk_app_id, app.admin, app.secret_key, app.secret_key_file",
    ),
}
"""The page of each command, by its name."""
