"""Workers of other libraries, each run by the Python of its own environment."""
