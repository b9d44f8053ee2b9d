"""The worker's side of a fleet: checks messages, runs chunks, sends heartbeats."""
