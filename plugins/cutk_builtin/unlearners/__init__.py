"""Built-in unlearners."""
