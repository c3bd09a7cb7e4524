"""What people can see of a text, and what a text may not hold.

Categories of code points are those of `unicodedata` (Unicode 14 with Python 3.11).
"""

import re
import unicodedata

CODE_POINTS_NAMED_MAX = 3
"""How many code points one sentence names."""
_INVISIBLE_CATEGORIES = frozenset(("Zs", "Zl", "Zp", "Cc", "Cf", "Mn", "Mc", "Me"))
"""White space, controls, format characters, marks (variation selectors among them)."""
_FILLERS = frozenset("\u115f\u1160\u3164\uffa0\u2800\U0001d159")
"""Letters and symbols that are drawn as nothing: Hangul fillers, the empty Braille pattern, the
null note head."""
_IGNORABLE_UNASSIGNED = ((0x2065, 0x2065), (0xFFF0, 0xFFF8), (0xE0000, 0xE0FFF))
"""Unassigned, and Default_Ignorable_Code_Point by DerivedCoreProperties.txt: drawn as nothing."""

_CONTROLS_OF_NAMES = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_CONTROLS_OF_TEXTS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_SEPARATORS = {"\u2028": "line separator", "\u2029": "paragraph separator"}


def is_visible(character: str) -> bool:
    """Return whether people see something of a character that stands alone."""
    if character in _FILLERS:
        return False
    category = unicodedata.category(character)
    if category == "Cn":
        number = ord(character)
        return not any(first <= number <= last for first, last in _IGNORABLE_UNASSIGNED)
    return category not in _INVISIBLE_CATEGORIES


def is_blank(text: str) -> bool:
    """Return whether people see nothing at all of a text."""
    return not any(map(is_visible, text))


def name_problem(name: str) -> str | None:
    """Return why people could not use a name that is not empty, None if they can."""
    # Most names: no control is printable, and people see their first character.
    if name.isprintable() and name[0].isalnum() and name[0] not in _FILLERS:
        return None
    if is_blank(name):
        codes = [code_point(character) for character in dict.fromkeys(name)]
        more = " ..." if len(codes) > CODE_POINTS_NAMED_MAX else ""
        shown = " ".join(codes[:CODE_POINTS_NAMED_MAX])
        return f"has nothing that people can see, only {shown}{more}"
    return _control_problem(_CONTROLS_OF_NAMES, name)


def text_problem(text: str) -> str | None:
    """Return which control a text of one or more lines may not hold, None if there is none."""
    # No control is printable; this takes half the time of the search.
    return None if text.isprintable() else _control_problem(_CONTROLS_OF_TEXTS, text)


def code_point(character: str) -> str:
    """Return the name of a character for people: U+0007."""
    return f"U+{ord(character):04X}"


def _control_problem(controls: re.Pattern[str], text: str) -> str | None:
    found = controls.search(text)
    if found is None:
        return None
    kind = _SEPARATORS.get(found[0], "control character")
    return f"holds the {kind} {code_point(found[0])}"
