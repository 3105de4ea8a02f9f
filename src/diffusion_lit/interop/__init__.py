"""The doors to other projects: their settings as ours, their weights by our names, and back where we export to them."""
