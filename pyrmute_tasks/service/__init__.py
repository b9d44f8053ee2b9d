"""Submitted jobs: submitting, driving, steering and watching them."""
