"""A corrective unlearning problem: what happened, and who knows what of it."""
