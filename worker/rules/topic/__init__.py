"""From a line of JSON to a topic.

`json_record` parses the line, `fields` and `identity` hold the rules for values and IDs, `topic`
applies them, `problems` holds the error that all of them raise.
"""
