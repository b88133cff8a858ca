"""Built-in summaries."""
