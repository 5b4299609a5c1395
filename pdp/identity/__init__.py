"""Who is asking: from credentials to a `VerifiedIdentity`, or to a refusal with one stable reason. Pure.

Bytes, keys and the time come in as values; nothing here opens a connection or reads a clock. The order of the checks is
that of IDENTITY.md PR-2, and the first failure decides. No other room can make a `VerifiedIdentity`.
"""
