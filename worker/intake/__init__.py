"""From the paths that a user names to records; every line that was read becomes one record.

`sources` opens, `compression` unpacks, `formats` splits into lines, `reader` makes records of them
and `dead_letters` reads a job's own dead letters.
"""
