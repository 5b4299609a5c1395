"""Portcullis: a zero-trust policy decision point for machine-learning resources."""

__version__ = "0.1.0"
