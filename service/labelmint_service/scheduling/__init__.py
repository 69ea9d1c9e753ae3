"""Scheduling: rows of all streams go in, in turns, and come back computed.

fleet          what runs: engines and a scheduler for each version, until its last stream has ended
scheduler      fills batches from all streams
batches        one goes to an engine and comes back; every stream in it learns how it ended
turns          whose row is next
admission      who waits for a turn, for how long, and whether one more may
replicas       the engines of one version; a batch goes to one that is free
engine_runner  runs of one engine, watched: memory, failures, a run that never ends
device_memory  of the devices they run on, as metrics
work           what is asked of a stream, and its rows on their way to the engine
rows           what is handed to and fro
"""
