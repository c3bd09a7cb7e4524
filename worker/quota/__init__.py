"""The quota of calls a second: engines of one contract (`limits.Quota`)."""
