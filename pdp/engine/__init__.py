"""The engine: Casbin models and rows, parsed strictly, compiled to an immutable index, and decided on by a pure function."""
