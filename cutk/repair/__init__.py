"""A model of the user's own, repaired: their weights, their data, their list of bad samples."""
