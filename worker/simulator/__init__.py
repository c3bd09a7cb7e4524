"""A local stand-in of the service, as documented and strict; shares no code with what it judges."""
