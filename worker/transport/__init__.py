"""Posts a body over HTTP and returns the answer: two transports behind one contract."""
