"""Find out what would keep an import from working, and say of each thing what to do."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from worker.jobs import Exit, print_json, print_result
from worker.jobs.doctor.configuration import read_settings, signature
from worker.jobs.doctor.places import place
from worker.jobs.doctor.queues import queues
from worker.jobs.doctor.service import Calls, service
from worker.redaction import redact
from worker.rules.diagnosis.finding import Finding, Grade

NAME_WIDTH = 18


def doctor(
    config: Path | None, options: Mapping[str, Mapping[str, Any]], out: Path, *, as_json: bool
) -> Exit:
    """Print what is found, each finding as soon as it is known; return PROBLEMS if one fails.

    `config`, `options`: as of `settings.loading.load`.
    """
    calls = Calls()
    findings: list[Finding] = []
    for finding in _diagnose(config, options, out, calls):
        findings.append(finding)
        if not as_json:
            print_result(*_lines(finding))
    grades = Counter(finding.grade for finding in findings)
    if as_json:
        print_json(
            {
                "checks": [_as_dict(finding) for finding in findings],
                **{grade.value: grades[grade] for grade in Grade},
                "calls": calls.made,
            }
        )
    else:
        print_result(_summary(grades, calls.made))
    return Exit.PROBLEMS if grades[Grade.FAIL] else Exit.DONE


def _diagnose(
    config: Path | None, options: Mapping[str, Mapping[str, Any]], out: Path, calls: Calls
) -> Iterator[Finding]:
    settings, found = read_settings(config, options)
    yield from found
    if settings is not None:
        found, usersig = signature(settings)
        yield from found
        yield from service(settings, usersig, calls)
        yield from queues(settings, out)
    yield from place(out)


def _lines(finding: Finding) -> Iterable[str]:
    yield f"{finding.grade.value}  {finding.name:<{NAME_WIDTH}}  {redact(finding.message)}"
    if finding.advice:
        yield f"{'':4}  {'':{NAME_WIDTH}}  to do: {redact(finding.advice)}"


def _as_dict(finding: Finding) -> dict[str, str | None]:
    return {
        "name": finding.name,
        "result": finding.grade.value,
        "message": redact(finding.message),
        "advice": redact(finding.advice) or None,
    }


def _summary(grades: Counter[Grade], calls: int) -> str:
    counted = ", ".join(f"{grades[grade]} {grade.value}" for grade in Grade)
    if grades[Grade.FAIL]:
        counted += ": mend what fails, then run doctor again"
    return f"{counted} ({calls} calls were made)"
