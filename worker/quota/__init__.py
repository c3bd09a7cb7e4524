"""The quota of calls a second, for one process or for many; the contract is `limits.Quota`."""
