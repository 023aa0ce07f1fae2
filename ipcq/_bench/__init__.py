"""How fast a queue is, side by side with others: what ``ipcq bench`` and the scripts in benchmarks/ measure with.

A *workload* is what is done, a *contestant* is who does it, and a *sample* is one contestant doing it once, in
processes of its own that were started apart. The contestants take turns in rounds, A B C A B C, so that whatever else
the machine is doing meets all of them; figures are medians over the rounds, and ratios are paired by round. The first
contestant takes part twice: how far its ratio to itself is from 1 says what the others' ratios are worth.

The way of a message through here: `workload` says what is moved, `payloads` makes the messages and checks what comes,
`worker` is the process that puts or gets them, `sample` starts the workers and ends them whatever happens, `comparison`
lets the contestants take turns, and `report`, `markdown` and `plot` tell the result.

The contestants here are ipcq itself (`queues`) and what the standard library has (`references`). Those that stand for
other libraries are in benchmarks/rivals.py.
"""
