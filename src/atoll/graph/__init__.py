"""What a job is, and how to run it.

`manifest`, `archive`, `fixed`: a job and its model as bytes. `signatures`, `check` (with `shapes`, `cost`): the gate
that every graph passes. `engine` (with `session`, `frames`, `rlimits`): run a graph in a limited child process.
`trace` (with `optimizers`, `decompose`, `tidy`) and `zoo.make` need torch and are for those who write models; nothing
else imports them.
"""
