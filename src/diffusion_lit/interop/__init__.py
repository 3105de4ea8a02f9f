"""The doors to other projects: their settings and weights into ours, and ours into theirs; numbers and names only."""
