"""Built-in manipulations."""
