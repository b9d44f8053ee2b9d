"""This package beside what people use today: same input, same output, in one run."""
