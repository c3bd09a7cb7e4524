"""Where the streams of a queue in Redis are: the server, the stream, the group, the keys beside."""

from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

DEFAULT_PORT = 6379


@dataclass(frozen=True, slots=True, repr=False)
class StreamUrl:
    """`redis://host:6379/0?stream=topics&group=importers`, split into its parts.

    `server`: the URL without `stream` and `group`, with a password if it has one.
    """

    server: str
    stream: str
    group: str

    def __str__(self) -> str:
        parts = urlsplit(self.server)
        place = f"{parts.hostname or parts.path}:{parts.port or DEFAULT_PORT}"
        return f"stream {self.stream}, group {self.group} at {place}"

    @classmethod
    def parse(cls, url: str) -> "StreamUrl":
        """Split a URL; the server's own options (`ssl_cert_reqs` ...) stay in `server`.

        Raises ValueError for an empty name.
        """
        parts = urlsplit(url)
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        stream = options.pop("stream", "topics")
        group = options.pop("group", "importers")
        if not (stream and group):
            raise ValueError("stream= and group= need a name")
        return cls(urlunsplit(parts._replace(query=urlencode(options))), stream, group)

    def key(self, name: str) -> str:
        """Return the name of a key beside the stream, such as `topics:dead`."""
        return f"{self.stream}:{name}"
