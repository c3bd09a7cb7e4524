"""Text from records, files, the service or Redis, made fit to be shown to people on one line.

A terminal obeys control characters, and a line break or a change of the writing direction forges
what the program seems to say. Everything that is shown to people goes through `visible`.
"""

import re
import unicodedata

_SHORT = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}
_UNSEEN_CATEGORIES = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Controls, format characters (bidirectional ones among them), surrogates, separators of lines."""
_PLAIN = re.compile(r"[ -~]*")
_LATIN_1, _BMP = 0xFF, 0xFFFF


def visible(text: str) -> str:
    r"""Return the text on one line, with an escape (`\x1b`, `\u202e`) for what cannot be seen."""
    if _PLAIN.fullmatch(text):
        return text
    return "".join(map(_shown, text))


def visible_lines(text: str) -> str:
    r"""Return a text that may have line breaks (`\n`) of its own; all else as `visible`."""
    return "\n".join(map(visible, text.split("\n")))


def _shown(character: str) -> str:
    if unicodedata.category(character) not in _UNSEEN_CATEGORIES:
        return character
    if character in _SHORT:
        return _SHORT[character]
    number = ord(character)
    if number <= _LATIN_1:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number <= _BMP else f"\\U{number:08x}"
