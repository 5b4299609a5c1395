"""Frozen values that every layer speaks in: names, questions, decisions, and their canonical bytes."""
