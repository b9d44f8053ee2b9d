"""What a worker process of a deployed fleet loads."""
