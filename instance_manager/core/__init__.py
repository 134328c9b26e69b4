"""Pure values and functions: what an instance manager decides, without doing any of it.

Contract: no I/O, no clock, no chance, no library of the outside world. Time, ids and facts come in as
arguments; decisions go out as values. import-linter holds this.
"""
