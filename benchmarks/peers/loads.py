"""Parse each line and forget it: `loads FILE`."""

import sys
from pathlib import Path

import orjson

with Path(sys.argv[1]).open("rb") as lines:
    for line in lines:
        orjson.loads(line)
