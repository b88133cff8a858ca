"""Evidence beside a repair, for whoever has to check it: what went in, what came out, and whether limits were kept."""
