"""Generated from proto/pdp/v1 by `make proto`; never edited."""
