"""A trained model for other programs: as a graph, as a folder, and what is said of it."""
