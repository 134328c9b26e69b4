"""Pure values and functions: what an instance manager decides, without doing any of it.

Contract: no I/O, no clock, no randomness, no third-party libraries. Time, IDs and facts come in as arguments;
decisions go out as values. import-linter enforces this.
"""
