"""The policy enforcement point beside a model server: a real Envoy, and the agent that answers its questions."""
