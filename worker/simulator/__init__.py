"""A strict simulation of the service as documented; it shares no code with the worker."""
