"""How fast we are, against reference loops that are compiled in the same run.

A group is one file `group_NAME.py` with a docstring that says what it measures and one function,
`rows(bench: harness.Bench) -> Iterator[harness.Row]`; a C file of reference loops stands next to it.
"""
