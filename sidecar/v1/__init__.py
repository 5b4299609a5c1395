"""Generated from proto/sidecar/v1 by `make proto`; never edited."""
