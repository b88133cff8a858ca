"""Built-in identifications."""
