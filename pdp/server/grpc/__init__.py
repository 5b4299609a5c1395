"""The gRPC door: one guard for every RPC, and a thin servicer for each service."""
