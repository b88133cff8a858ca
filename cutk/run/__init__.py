"""From a plan to stored runs."""
