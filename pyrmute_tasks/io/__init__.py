"""Files as sources and sinks: the only code that knows formats."""
