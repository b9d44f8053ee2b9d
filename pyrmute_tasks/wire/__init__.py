"""The wire format: frames, lossless values, errors, signatures."""
