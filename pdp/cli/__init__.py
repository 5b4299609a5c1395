"""The command line: one file per noun, and one boundary (`main.py`) where every error becomes a line and an exit code."""
