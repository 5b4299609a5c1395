"""The demonstration: a real model, a throw-away trust domain, and a story the gate tells as promised, or fails."""
