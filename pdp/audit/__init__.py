"""The decision log, pure: what a record holds, how records chain, and how a chain is verified."""
