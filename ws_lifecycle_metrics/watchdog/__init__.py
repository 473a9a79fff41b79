"""Who hangs, since when and where: connections, event loops and whole workers.

`stuck` judges connections and `workers` workers, from a segment's words and the process table,
so that readers in other processes see what a hung worker cannot say. `heartbeat`, `scan`,
`guard` and `stacks` run inside the worker and add what only it knows: where the code waits.
"""
