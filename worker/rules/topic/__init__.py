"""From a line of JSON to a topic.

`json_record` parses the line, `fields` and `identity` hold the rules for values and IDs,
`characters` what a text may hold, `cutting` how one that is too long is cut; `topic` applies them.
`problems` holds the error that all of them raise, `oddities` what is valid and probably not meant.
"""
