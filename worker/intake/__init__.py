"""From the paths that a user names to records; every record that was read is one line.

`sources` opens and judges an input, `compression` unpacks it, `formats` holds what is known of each
format; `opening` makes lines of any of them, `reader` records of the lines, `look_ahead` reads an
input a second time, and `dead_letters` reads a job's own dead letters.
"""
