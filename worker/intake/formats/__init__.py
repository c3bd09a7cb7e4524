"""The formats of inputs, a module each: from the bytes of an input to numbered pieces."""
