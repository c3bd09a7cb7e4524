"""topic-import: imports topics into Tencent Cloud Chat communities, losing and doubling nothing."""

__version__ = "0.1.0"
"""The one source of the version: the package and `topic-import --version` read it here."""
