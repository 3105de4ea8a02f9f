"""The doors to other projects: what their files say, as settings and weights of ours, and back.

Names and numbers only: no network is built here, and nothing from a file is run.
"""
