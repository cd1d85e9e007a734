"""The pipeline under fire, in one process, by a seed: `make simulate SEED=n RUNS=m`; docs/simulation.md says how.

choices.py     where every decision of a run comes from: a seed, or a list that is replayed; shrinking
scheduler.py   activities of simulated processes, one greenlet each: who goes on at each statement; faults
store.py       the database: its clock and its random numbers are the run's; emptied between runs
network.py     the broker: messages are delivered late, twice, in any order or never
patches.py     the seams: what the program calls, and the simulation answers or watches
world.py       a run: processes, texts, events, and the end, when nothing is open any more
clients.py     what clients and operators do in a run
best.py        searches for the best orthos: asked for, stopped, proven
messages.py    what happens to messages, and what a worker does with one
relays.py      what relays do
checks.py      what must hold then
ledger.py      what a campaign must have reached at least once
campaign.py    many runs; the command
"""
