"""Bytes between processes: frames, values that keep their types, errors, signatures."""
