"""Training of the parts of the bundled pack, from the drawn world alone."""
