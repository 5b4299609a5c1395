"""A change of the policy before it is live: what it touches, who proposed it, who said yes. Pure, like all of layer 1."""
