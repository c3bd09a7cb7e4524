"""The pages of `--help`: their examples parse, and the settings that they name exist."""

import re

import pytest
import typer

from worker.cli import app
from worker.manual import PAGES
from worker.settings.model import setting_names

COLUMNS = 80
NAMES = list(setting_names())


def test_every_command_has_a_page() -> None:
    assert {command.name for command in app.registered_commands} == PAGES.keys()


@pytest.mark.parametrize("name", PAGES)
def test_the_sentence_of_a_command_fits_into_one_line_of_the_list(name: str) -> None:
    sentence = PAGES[name].sentence
    assert sentence.endswith(".")
    assert len(sentence) <= COLUMNS - len("  ") - max(map(len, PAGES)) - len("  ")


@pytest.mark.parametrize("name", PAGES)
def test_the_examples_of_a_command_are_accepted(name: str) -> None:
    program = typer.main.get_command(app)
    for example in PAGES[name].examples:
        words = example.replace('"', "").split()
        words = words[words.index("topic-import") + 1 :]
        assert words[0] == name
        command = program.get_command(typer.Context(program), name)  # type: ignore[attr-defined]
        command.make_context(name, words[1:])


@pytest.mark.parametrize("name", PAGES)
def test_the_settings_that_a_page_names_exist(name: str) -> None:
    named = [word for word in PAGES[name].settings.split(", ") if word not in {"", "all"}]
    for word in named:
        pattern = re.escape(word).replace(r"\*", ".+")
        assert any(re.fullmatch(pattern, known) for known in NAMES), word
