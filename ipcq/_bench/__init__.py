"""Benchmarks of queues side by side, for ``ipcq bench`` and the scripts in benchmarks/.

A *contestant* is a queue implementation, a *workload* is a task for it, and a *sample* is one run of a workload by one
contestant, in separate processes. The contestants take turns in rounds, A B C A B C, so that other load on the machine
affects all of them. Figures are medians over the rounds, and ratios are paired by round. The first contestant takes
part twice: the deviation of its ratio to itself from 1 shows the noise.

`workload` defines the tasks. `payloads` makes and checks messages. `worker` is the process that puts or gets them.
`sample` starts the workers and always ends them. `comparison` runs the rounds. `report`, `markdown` and `plot` present
the result.

The contestants here are ipcq (`queues`) and the standard library (`references`). Other libraries are in
benchmarks/rivals.py.
"""
