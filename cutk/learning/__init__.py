"""A, the learning algorithm, and what methods build from it."""
