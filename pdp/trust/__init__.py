"""Signed log entries, keys and the verifier: bytes in, verified values or refusals out."""
