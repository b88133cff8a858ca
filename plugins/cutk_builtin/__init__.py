"""cutk's built-in plugins: one component per file, found through the same entry points as anyone's."""
