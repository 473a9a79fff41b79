"""The numbers of the workers, in memory that other processes can read.

`layout` says what each word means, `writer` writes a segment, `worker` gives the words their
names, `reader` reads them, `archive` keeps those of the dead, `snapshot` is what all sinks use.
"""
