"""What `check` finds out about all inputs together, in memory that does not grow with them.

`spool` keeps entries on disk where they outgrow memory; `doubles` finds equal TopicIds, `sizes`
counts the topics of each community and `equal_names` finds names that became equal by cutting.
`places` numbers the lines of all inputs, `groups` holds problems by their kind; `findings` gathers
what was found and `shown` prints it.
"""
