"""The producer's side of a fleet: sends chunks, collects outcomes, resends lost chunks."""
