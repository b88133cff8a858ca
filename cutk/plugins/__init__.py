"""Finding plugins, keeping a broken one from hurting the rest, and resolving names."""
