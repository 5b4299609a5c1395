"""Use cases: asynchronous, over ports; each door is a thin shell around one of these."""
