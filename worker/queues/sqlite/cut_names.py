"""What cutting did to the records of the embedded queue, read from its tables."""

import sqlite3

from worker.rules.topic.oddities import NO_EQUAL_NAMES, EqualName, EqualNames

EXAMPLES_MAX = 1000
# A name inside a text cannot look like `"truncated":["TopicName"`: its quotes are escaped.
_EQUAL = """
WITH named AS (
  SELECT json_extract(CAST(body AS TEXT), '$.GroupId') AS group_id,
    json_extract(CAST(body AS TEXT), '$.TopicName') AS topic_name,
    instr(truncated, '"TopicName"') > 0 AS is_cut,
    path || ':' || records.line AS source
  FROM payloads JOIN records USING (id) JOIN inputs ON inputs.id = input
  UNION ALL
  SELECT json_extract(CAST(line AS TEXT), '$.group_id'),
    json_extract(CAST(line AS TEXT), '$.topic_name'),
    instr(CAST(line AS TEXT), '"truncated":["TopicName"') > 0,
    json_extract(CAST(line AS TEXT), '$.source')
  FROM imported
)
SELECT group_id, topic_name, count(*) AS topics, min(source), max(source),
  count(*) OVER (), sum(count(*)) OVER ()
FROM named GROUP BY group_id, topic_name HAVING topics > 1 AND max(is_cut)
ORDER BY topics DESC, group_id, topic_name LIMIT ?
"""


def equal_names(db: sqlite3.Connection) -> EqualNames:
    """Return the TopicNames that became equal to another one of their community by cutting.

    Reads every topic that is queued or imported: about two seconds for a million.
    """
    rows = db.execute(_EQUAL, (EXAMPLES_MAX,)).fetchall()
    if not rows:
        return NO_EQUAL_NAMES
    examples = tuple(
        EqualName(group_id, topic_name, topics, tuple(sources))
        for group_id, topic_name, topics, *sources, _, _ in rows
    )
    return EqualNames(names=rows[0][5], topics=rows[0][6], examples=examples)
